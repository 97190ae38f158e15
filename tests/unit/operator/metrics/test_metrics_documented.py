"""docs/monitoring.md tells of each metric and each alert that there is, and of no other."""

from pathlib import Path

import yaml
from chart import render_chart
from codetune_operator.metrics.collecting import CATALOGUE

PAGE = (Path(__file__).resolve().parents[4] / "docs" / "monitoring.md").read_text()


def rows(head: str) -> list[list[str]]:
    """The cells of the table with this head."""
    table = PAGE.split(f"| {head} |")[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_the_table_of_metrics_is_what_the_operator_tells() -> None:
    assert rows("metric | type | labels | meaning") == [
        [f"`{family.name}`", family.type, ", ".join(f"`{label}`" for label in family.labels), family.help]
        for family in CATALOGUE
    ]


def test_the_table_of_alerts_is_what_the_chart_brings() -> None:
    (made,) = [
        found for found in render_chart({"prometheusRule": {"enabled": True}}) if found["kind"] == "PrometheusRule"
    ]
    assert [(name, severity) for name, _, severity in rows("alert | when | severity")] == [
        (f"`{rule['alert']}`", rule["labels"]["severity"]) for rule in made["spec"]["groups"][0]["rules"]
    ]


def test_the_values_on_the_page_are_those_of_the_chart_and_switch_everything_on() -> None:
    values = yaml.safe_load(PAGE.split("```yaml\n")[1].split("```")[0])
    kinds = [found["kind"] for found in render_chart(values)]
    assert (kinds.count("PodMonitor"), kinds.count("PrometheusRule"), kinds.count("ConfigMap")) == (3, 1, 3)
