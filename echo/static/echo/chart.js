// Draws the chart of an admin page: the numbers that the event stream has sent since the page was opened.
// It receives the events of live.js, and is drawn again each second.
'use strict';

{
  const SPANS = [1, 2, 5, 10]; // minutes; the chart grows with the time since the page was opened
  const MINUTE = 60000; // milliseconds
  const SECOND = 1000;
  const HEIGHT = 120; // pixels
  const [TOP, BOTTOM] = [14, HEIGHT - 16]; // space for the labels
  const SVG = 'http://www.w3.org/2000/svg';

  // Returns the smallest of 1, 2, 5, 10, 20, 50 ... that is not less than the number.
  const ceiling = (number) => {
    const power = 10 ** Math.floor(Math.log10(Math.max(number, 1)));
    return [1, 2, 5, 10].map((digit) => digit * power).find((step) => step >= number);
  };

  const element = (name, attributes, text = '') => {
    const created = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) created.setAttribute(key, value);
    created.textContent = text;
    return created;
  };

  for (const chart of document.querySelectorAll('.echo-chart')) {
    const svg = chart.querySelector('svg');
    const title = svg.querySelector('title');
    const description = svg.querySelector('desc');
    const rows = [...chart.querySelectorAll('[data-series]')];
    const { since, now: nowLabel, unknown, range } = chart.dataset;
    const began = Date.now();
    let samples = []; // { time, numbers }; the numbers are null while they are unknown

    // Returns the path of a series: steps, with a gap while its number is unknown.
    const path = (series, end, x, y) => {
      let d = '';
      let previous; // the number of the last sample
      for (const { time, numbers } of [...samples, { time: end, numbers: null }]) {
        const number = numbers ? numbers[series] : undefined;
        if (previous !== undefined) d += `H${x(time)}`;
        if (number !== undefined) d += `${previous === undefined ? `M${x(time)} ` : 'V'}${y(number)}`;
        previous = number;
      }
      return d;
    };

    const describe = (row, minutes) => {
      const known = samples.flatMap(({ numbers }) => numbers?.[row.dataset.series] ?? []);
      row.hidden = known.length === 0 && row !== rows[0];
      const now = samples.at(-1)?.numbers?.[row.dataset.series] ?? unknown;
      const values = { now, least: Math.min(...known), most: Math.max(...known), minutes };
      const text = (row.dataset.text + (known.length > 0 ? range : '')).replace(/{(\w+)}/g, (_, key) => values[key]);
      row.querySelector('span').textContent = text;
      return row.hidden ? [] : [text];
    };

    const draw = () => {
      if (document.hidden) return;
      const end = Date.now();
      const minutes = SPANS.find((span) => began > end - span * MINUTE) ?? SPANS.at(-1);
      const start = end - minutes * MINUTE;
      // The last sample before the start is drawn from the start on.
      samples = samples.filter((_, i) => i + 1 === samples.length || samples[i + 1].time > start);
      const texts = rows.flatMap((row) => describe(row, minutes));
      description.textContent = texts.join('. ');

      const width = svg.clientWidth;
      const most = ceiling(Math.max(0, ...samples.flatMap(({ numbers }) => Object.values(numbers ?? {}))));
      const x = (time) => (Math.max(0, (time - start) / (end - start)) * width).toFixed(1);
      const y = (number) => (BOTTOM - (number / most) * (BOTTOM - TOP)).toFixed(1);
      svg.setAttribute('viewBox', `0 0 ${width} ${HEIGHT}`);
      svg.replaceChildren(
        title,
        description,
        element('path', { class: 'echo-grid', d: `M0 ${TOP}H${width}M0 ${BOTTOM}H${width}` }),
        element('text', { x: 0, y: TOP - 3 }, most),
        element('text', { x: 0, y: BOTTOM - 3 }, 0),
        element('text', { x: 0, y: HEIGHT - 3 }, since.replace('{minutes}', minutes)),
        element('text', { x: width, y: HEIGHT - 3, 'text-anchor': 'end' }, nowLabel),
        ...rows.map(({ dataset: { series } }) =>
          element('path', { 'data-series': series, d: path(series, end, x, y) })),
      );
    };

    const add = (numbers) => {
      samples.push({ time: Date.now(), numbers });
      draw();
    };

    chart.addEventListener('echo-count', ({ detail }) => {
      add(detail && Object.fromEntries(
        rows.map(({ dataset: { series } }) => [series, detail[series]]).filter(([, number]) => number !== undefined),
      ));
    });
    chart.addEventListener('echo-stale', ({ detail }) => {
      if (detail) add(null);
    });
    // A hidden page has no stream.
    document.addEventListener('visibilitychange', () => add(null));
    addEventListener('resize', draw);
    setInterval(draw, SECOND);
    chart.hidden = false;
    draw();
  }
}
