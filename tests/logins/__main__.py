"""`python -m tests.logins`: how long connections outlive each end of a login.

For each session engine and server: the seconds from the request that ends the login until the
Close, with ECHO_RECHECK_SECONDS of 1, and its code. Fails if a connection of another login is
closed, or if code or reason are not as documented. Takes about four minutes.
"""

import sys

from tests.logins.site import (
    COOKIE_AGE,
    ENGINES,
    EVENTS,
    SERVERS,
    Event,
    LoginSite,
    measure,
    needs_short_cookies,
)


def main() -> int:
    print(f"| event | session engine | {' | '.join(SERVERS)} |")
    print(f"|---|---|{'---|' * len(SERVERS)}")
    cells = {}
    for engine in ENGINES:
        for name, kinds in SERVERS.items():
            for is_short in (False, True):
                events = [e for e in EVENTS if needs_short_cookies(e, engine) == is_short]
                if not events:
                    continue
                age = COOKIE_AGE if is_short else 1000
                with LoginSite(engine, kinds, LOGINS_COOKIE_AGE=str(age)) as site:
                    for event in events:
                        cells[event.name, engine, name] = cell(site, event)
                    if "Traceback" in site.logs():
                        print(site.logs(), file=sys.stderr)
    for event in EVENTS:
        for engine in ENGINES:
            row = [cells[event.name, engine, name] for name in SERVERS]
            print(f"| {event.name} | {engine} | {' | '.join(row)} |")
    return int(any(text.startswith("**") for text in cells.values()))


def cell(site: LoginSite, event: Event) -> str:
    try:
        outcome = measure(site, event)
    except Exception as error:  # the other cells are measured all the same
        return f"**FAILS**: {error!r}".replace("\n", " ")
    return f"{outcome.seconds:.2f} s, {outcome.code}"


if __name__ == "__main__":
    sys.exit(main())
