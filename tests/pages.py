"""What the tests of pages share: names that strangers may choose, checks of layout, the console."""

from playwright.sync_api import Page

IMAGE = "<img src=x onerror=alert(1)>"
LONG = "😀" * 32  # 128 bytes, and no place to break
HOSTILE = [
    *(".", "..", "</script><script>alert(1)</script>".replace("/", "\\"), '"><img src=x>', "a&b=c"),
    *("\u202eevil", "\u2067rtl\u2069", "😀" * 32, "100%", "+ ", " a  b ", "#?", "[1]", "{name}"),
    *("%2F", "%252F", "it's", "{{ name }}", "%(name)s", "<!--", "&amp;", "javascript:alert(1)"),
]
WIDTHS = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
# Contrast of each text with the first background behind it: WCAG 2.2, 1.4.3.
LOW_CONTRASTS = """() => {
  const parts = color => color.match(/[\\d.]+/g).map(Number);
  const linear = part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  const light = color => {
    const [red, green, blue] = color.map(part => linear(part / 255));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const behind = node => {
    const color = node ? parts(getComputedStyle(node).backgroundColor) : [255, 255, 255];
    return color[3] === 0 ? behind(node.parentElement) : color;
  };
  const contrast = node => {
    const both = [parts(getComputedStyle(node).color), behind(node)].map(light);
    return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
  };
  const isText = child => child.nodeType === Node.TEXT_NODE && child.data.trim();
  const hasText = node => node.value || [...node.childNodes].some(isText);
  const isShown = node => node.checkVisibility() && !node.closest(':disabled');
  return [...document.querySelectorAll('.echo *')]
    .filter(node => isShown(node) && hasText(node) && contrast(node) < 4.5)
    .map(node => node.outerHTML);
}"""


def connect(page: Page, name: str = "foo") -> None:
    page.get_by_role("textbox", name="Object").fill(name)
    page.get_by_role("button", name="Connect").click()


def log(page: Page, kind: str) -> list[str]:
    """Return the texts of the lines of that kind in the log."""
    return page.locator(f"[role=log] [data-kind={kind}] bdi").all_inner_texts()


def table(page: Page) -> list[list[str]]:
    """Return the rows of the table of objects: names and counts."""
    rows = page.get_by_role("table", name="Objects connected now").locator("tbody tr").all()
    return [row.locator("th, td").all_inner_texts() for row in rows]
