"""What the chart brings for Prometheus and Grafana: who is scraped, dashboards and alerts that ask for what there is.

Expressions are not evaluated: no Prometheus is at hand. What they name is checked: metrics, labels and their values.
"""

import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from chart import CHART, RELEASE, SYSTEM_NAMESPACE, render_chart
from codetune_api.modeldeployment import AdapterState, ModelDeployment
from codetune_api.team import Team
from codetune_gateway.measuring import Meter
from codetune_operator.metrics.collecting import CATALOGUE
from codetune_operator.metrics.everyone import PHASES
from codetune_operator.metrics.series import words_of
from codetune_operator.resources.modeldeployment.names import serving_labels
from codetune_operator.resources.team.names import gateway_labels
from prometheus_client import Counter, Gauge, Histogram

Obj = dict[str, Any]

SERVED = ModelDeployment.from_wire(
    {
        "apiVersion": "codetune.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "coder", "namespace": "team", "uid": "u", "generation": 1},
        "spec": {"baseModel": "pvc://models/qwen"},
    }
)
TEAM = Team.from_wire(
    {
        "apiVersion": "codetune.dev/v1alpha1",
        "kind": "Team",
        "metadata": {"name": "payments", "namespace": "team", "uid": "u", "generation": 1},
        "spec": {"apiKeysSecretRef": {"name": "keys"}, "completionModel": {"deploymentRef": {"name": "coder"}}},
    }
)
DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))
OF_THE_TARGET = {"namespace", "pod", "job", "instance"}
"""Labels that Prometheus puts on everything that it scrapes by a PodMonitor."""
OF_THE_LIBRARY = {"process_resident_memory_bytes": set[str]()}


def find(objects: list[Obj], kind: str, name: str = "") -> list[Obj]:
    return [found for found in objects if found["kind"] == kind and name in found["metadata"]["name"]]


@pytest.fixture(scope="module")
def default() -> list[Obj]:
    return render_chart({})


def monitors(**values: Any) -> tuple[Obj, Obj]:
    """The PodMonitors of the operator and of serving pods."""
    found = find(render_chart({"podMonitor": {"enabled": True}, **values}), "PodMonitor")
    (operator,) = find(found, "PodMonitor", "-operator")
    (servers,) = find(found, "PodMonitor", "-servers")
    return operator, servers


def test_nothing_for_prometheus_or_grafana_is_there_unless_wanted(default: list[Obj]) -> None:
    kinds = [found["kind"] for found in default]
    assert not {"PodMonitor", "PrometheusRule"} & set(kinds)
    assert kinds.count("ConfigMap") == 1


def test_serving_pods_are_scraped_with_a_key_where_one_is_named() -> None:
    secret = {"name": "prometheus-key", "key": "token"}
    _, monitor = monitors(podMonitor={"enabled": True, "labels": {"release": "prometheus"}, "keySecret": secret})
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["namespaceSelector"] == {"any": True}
    assert monitor["spec"]["selector"]["matchLabels"].items() <= serving_labels(SERVED).items()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint == {
        "port": "http",
        "path": "/metrics",
        "interval": "30s",
        "authorization": {"credentials": secret},
    }
    _, narrow = monitors(watchNamespaces=["a"])
    assert narrow["spec"]["namespaceSelector"] == {"matchNames": ["a"]}
    assert "authorization" not in narrow["spec"]["podMetricsEndpoints"][0]


def test_gateways_are_scraped_on_their_own_port_without_a_key_and_with_their_team() -> None:
    values = {"enabled": True, "labels": {"release": "prometheus"}, "keySecret": {"name": "key", "key": "token"}}
    rendered = render_chart({"podMonitor": values, "watchNamespaces": ["a"]})
    (monitor,) = find(rendered, "PodMonitor", "-gateways")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": ["a"]}
    labels = gateway_labels(TEAM)
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert not monitor["spec"]["selector"]["matchLabels"].items() <= serving_labels(SERVED).items()
    assert {*monitor["spec"]["podTargetLabels"]} <= labels.keys()
    assert monitor["spec"]["podMetricsEndpoints"] == [{"port": "metrics", "path": "/metrics", "interval": "30s"}]


def test_the_operator_is_scraped_at_its_port_and_keeps_the_namespaces_of_its_resources() -> None:
    objects = render_chart({"podMonitor": {"enabled": True, "labels": {"release": "prometheus"}, "interval": "1m"}})
    (monitor,) = find(objects, "PodMonitor", "-operator")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["metadata"]["namespace"] == SYSTEM_NAMESPACE
    assert "namespaceSelector" not in monitor["spec"], "its own namespace"
    pod = find(objects, "Deployment")[0]["spec"]["template"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint == {"port": "metrics", "path": "/metrics", "interval": "1m", "honorLabels": True}
    assert endpoint["port"] in {port["name"] for port in pod["spec"]["containers"][0]["ports"]}


SCRAPERS = [
    pytest.param([], [], id="nobody"),
    pytest.param([["monitoring", "observability"]], ["monitoring", "observability"], id="named namespaces"),
]


@pytest.mark.parametrize(("expected", "namespaces"), SCRAPERS)
def test_the_operators_policy_lets_scrapers_in_and_nobody_else(expected: list[Any], namespaces: list[str]) -> None:
    values = {"networkPolicy": {"enabled": True}, "settings": {"monitoringNamespaces": namespaces}}
    (policy,) = find(render_chart(values), "NetworkPolicy")
    assert "Ingress" in policy["spec"]["policyTypes"]
    rules = policy["spec"]["ingress"]
    assert [rule["ports"] for rule in rules] == [[{"port": "metrics", "protocol": "TCP"}]] * len(expected)
    peers = [rule["from"][0]["namespaceSelector"]["matchExpressions"][0] for rule in rules]
    assert all((peer["key"], peer["operator"]) == ("kubernetes.io/metadata.name", "In") for peer in peers)
    assert [peer["values"] for peer in peers] == expected


def test_each_dashboard_is_a_configmap_that_grafanas_sidecar_finds() -> None:
    found = find(render_chart({"dashboards": {"enabled": True}}), "ConfigMap", "-dashboard-")
    assert len(found) == len(DASHBOARDS) == 2
    for path, made in zip(DASHBOARDS, sorted(found, key=lambda each: str(each["metadata"]["name"])), strict=True):
        assert made["metadata"]["name"] == f"{RELEASE}-dashboard-{path.stem}"
        assert made["metadata"]["namespace"] == SYSTEM_NAMESPACE
        assert made["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert "annotations" not in made["metadata"]
        ((name, text),) = made["data"].items()
        assert name == f"codetune-{path.name}"
        assert json.loads(text) == json.loads(path.read_text())


def test_dashboards_go_where_a_sidecar_looks_for_them() -> None:
    place = {"namespace": "monitoring", "labels": {"dashboards": "yes"}, "annotations": {"grafana_folder": "Codetune"}}
    for made in find(render_chart({"dashboards": {"enabled": True, **place}}), "ConfigMap", "-dashboard-"):
        assert made["metadata"]["namespace"] == "monitoring"
        assert made["metadata"]["labels"]["dashboards"] == "yes"
        assert made["metadata"]["annotations"] == {"grafana_folder": "Codetune"}


def load(path: Path) -> Obj:
    found: Obj = json.loads(path.read_text())
    return found


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_lets_its_reader_choose_data_source_and_namespace(path: Path) -> None:
    board = load(path)
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert {"datasource", "namespace"} < variables.keys()
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    sources = [entry["datasource"]["uid"] for entry in every_dict(board) if isinstance(entry.get("datasource"), dict)]
    assert set(sources) == {"${datasource}"}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_have_titles_of_their_own_and_do_not_overlap(path: Path) -> None:
    panels = load(path)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 10
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def every_dict(value: Any) -> Iterator[Obj]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for entry in value:
            yield from every_dict(entry)


def exposed(name: str, kind: str) -> set[str]:
    """The names of a metric's series."""
    if kind == "histogram":
        return {f"{name}_{part}" for part in ("bucket", "count", "sum")}
    return {name.removesuffix("_total") + "_total"} if kind == "counter" else {name}


def metrics_of_gateways() -> Iterator[tuple[str, str, set[str]]]:
    """Name, type and labels of what a team's gateway tells."""
    for metric in vars(Meter("payments")).values():
        if isinstance(metric, Counter | Gauge | Histogram):
            # What a metric is called is told by samples alone, and there is none before a request.
            yield metric._name, metric._type, set(metric._labelnames)


def labels_of_ours() -> dict[str, set[str]]:
    """Series → its labels."""
    ours = [*((family.name, family.type, set(family.labels)) for family in CATALOGUE), *metrics_of_gateways()]
    series = {name: labels for base, kind, labels in ours for name in exposed(base, kind)}
    return {name: labels | ({"le"} if name.endswith("_bucket") else set()) for name, labels in series.items()}


def series_of_vllm() -> set[str]:
    """The series of the vLLM that is installed, out of its source: to import it takes many seconds."""
    spec = find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    text = (Path(spec.origin).parent / "v1" / "metrics" / "loggers.py").read_text()
    found = re.findall(r'_(gauge|counter|histogram)_cls\(\s*name="(vllm:\w+)"', text)
    assert len(found) > 30
    return {name for kind, base in found for name in exposed(base, kind)}


def expressions() -> Iterator[Any]:
    """Every expression of dashboards and alerts, named by where it is."""
    for path in DASHBOARDS:
        board = load(path)
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                yield pytest.param(target["expr"], id=f"{path.stem}: {panel['title']} {target['refId']}")
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
                assert asked is not None
                yield pytest.param(asked[1], id=f"{path.stem}: choice of {variable['name']}")
    for rule in alerts():
        yield pytest.param(rule["expr"], id=rule["alert"])


def alerts() -> list[Obj]:
    (made,) = find(render_chart({"prometheusRule": {"enabled": True}}), "PrometheusRule")
    (group,) = made["spec"]["groups"]
    rules: list[Obj] = group["rules"]
    return rules


def named_series(expression: str) -> set[str]:
    """What is neither a function, a label, a text, a number nor a word of the language."""
    rest = re.sub(r'"[^"]*"', "", expression)
    rest = re.sub(r"\{[^}]*\}|\[[^]]*\]", "", rest)
    rest = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", rest)
    return set(re.findall(r"\b[a-z_][\w:]*\b(?!\s*\()", rest)) - {"and", "or", "unless"}


def matchers(expression: str) -> Iterator[tuple[str, str, list[str]]]:
    """Series, label, and the values that it is compared with."""
    for name, inside in re.findall(r"([\w:]+)\{([^}]*)\}", expression):
        for label, values in re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', inside):
            yield name, label, values.split("|")


@pytest.mark.parametrize("expression", list(expressions()))
def test_an_expression_asks_for_series_that_exist_by_labels_and_words_that_they_have(expression: str) -> None:
    ours = labels_of_ours() | OF_THE_LIBRARY
    found = named_series(expression)
    assert found
    assert found <= ours.keys() | series_of_vllm()
    words = {
        "kind": set(PHASES),
        "phase": {phase for some in PHASES.values() for phase in some} | set(words_of(AdapterState, "phase")),
        "status": {"true", "false", "unknown"},
        "type": {"Ready", "Reconciling", "Stalled", "Available"},
    }
    for name, label, values in matchers(expression):
        if name in ours:
            assert label in ours[name] | OF_THE_TARGET, name
            assert set(values) <= words.get(label, set(values))
        else:
            assert label in {*OF_THE_TARGET, "codetune_dev_modeldeployment"}, name


def test_the_label_by_which_vllms_series_are_chosen_is_the_one_that_the_podmonitor_adds() -> None:
    _, servers = monitors()
    added = {re.sub(r"\W", "_", label) for label in servers["spec"]["podTargetLabels"]}
    assert added == {"codetune_dev_modeldeployment"}
    assert set(servers["spec"]["podTargetLabels"]) <= serving_labels(SERVED).keys()


def test_an_expression_that_asks_for_something_else_would_be_found() -> None:
    expression = 'sum by (kind) (rate(codetune_typo_total{kind="FineTune"}[5m])) / on (pod) vllm:typo unless up == 1'
    assert named_series(expression) == {"codetune_typo_total", "vllm:typo", "up"}
    assert list(matchers(expression)) == [("codetune_typo_total", "kind", ["FineTune"])]


@pytest.mark.parametrize("rule", [pytest.param(rule, id=rule["alert"]) for rule in alerts()])
def test_an_alert_says_what_is_wrong_and_what_to_do(rule: Obj) -> None:
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert re.fullmatch(r"\d+[mhd]", rule["for"])
    assert rule["annotations"]["summary"].endswith((".", "}}."))
    assert "kubectl" in rule["annotations"]["description"]
    # Whatever an annotation names is a label that the expression leaves there.
    named = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
    assert named <= {"namespace", "name"}
    assert not named or "by (namespace, name)" in rule["expr"]


@pytest.mark.parametrize(
    "rule", [rule for rule in alerts() if rule["for"].endswith("d")], ids=lambda rule: rule["alert"]
)
def test_a_wait_of_days_does_not_begin_anew_with_the_operator(rule: Obj) -> None:
    """Prometheus forgets an alert that waits when its series is gone for one evaluation."""
    assert re.search(r"_over_time\(\w+\[\d+m\]\)", rule["expr"])


def test_alerts_have_the_labels_that_a_prometheus_selects_them_by() -> None:
    values = {"prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}}}
    (made,) = find(render_chart(values), "PrometheusRule")
    assert made["metadata"]["labels"]["release"] == "prometheus"


def test_each_release_has_an_alert_for_its_own_operator() -> None:
    values = {"prometheusRule": {"enabled": True}}
    (made,) = find(render_chart(values, "other", "elsewhere"), "PrometheusRule")
    first = made["spec"]["groups"][0]["rules"][0]
    assert first["expr"] == 'absent(codetune_operator_leading{namespace="elsewhere"} == 1)'
    assert "deployment/other-operator" in first["annotations"]["description"]
