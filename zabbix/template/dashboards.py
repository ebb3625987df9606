"""The three dashboards."""

from template.parts import Dashboard, Widget

DASHBOARDS = (
    Dashboard("Store health", (
        Widget("item", "definitions.time", (0, 0, 6, 3)),
        Widget("item", "rescan.infected", (6, 0, 6, 3)),
        Widget("item", "quarantine.held", (12, 0, 6, 3)),
        Widget("item", "outbox.waiting", (18, 0, 6, 3)),
        Widget("graphs", "Store {#STORE}: coverage", (0, 3, 24, 8), "Coverage of each store"),
        Widget("graphs", "Store {#STORE}: size and what was saved", (0, 11, 24, 7),
               "Size of each store"))),
    Dashboard("A night's work", (
        Widget("graph", "A night: images optimised", (0, 0, 12, 6)),
        Widget("graph", "A night: bytes saved", (12, 0, 12, 6)),
        Widget("graph", "A night: images rescanned", (0, 6, 12, 6)),
        Widget("graph", "Run times", (12, 6, 12, 6)),
        Widget("graph", "Outbox", (0, 12, 12, 5)),
        Widget("graph", "Upload scan times", (12, 12, 12, 5)))),
    Dashboard("Bytes saved", (
        Widget("graph", "Bytes saved, by run", (0, 0, 24, 6)),
        Widget("graphs", "Store {#STORE}: size and what was saved", (0, 6, 24, 8),
               "Size of each store"))),
)
