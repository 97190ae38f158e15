"""What the documents name is there: links, files of commands, values of the chart, commands of the Makefile."""

import re
from pathlib import Path
from typing import Any

import yaml
from chart import render_chart
from codetune_operator.settings import parse_settings

REPOSITORY = Path(__file__).resolve().parents[3]
DOCUMENTS = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted(REPOSITORY.glob("docs/**/*.md"))]
DOCUMENTS += [REPOSITORY / "benchmarks" / "README.md", REPOSITORY / "charts" / "codetune" / "README.md"]
README = (REPOSITORY / "README.md").read_text().replace("\\\n", " ")
LINK = re.compile(r"\]\((?!https?:)([\w./-]*)(?:#([\w-]*))?\)")


def test_every_link_leads_to_a_file_and_a_heading() -> None:
    links = [(document, *link) for document in DOCUMENTS for link in LINK.findall(document.read_text())]
    assert len(links) > 30
    for document, path, heading in links:
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), (document.name, path)
        if heading:
            titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert heading in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}, heading


def test_the_readme_applies_files_of_one_story() -> None:
    (line,) = re.findall(r"kubectl apply (.*)", README)
    files = re.findall(r"-f (\S+)", line)
    made = {(obj["kind"].lower(), obj["metadata"]["name"]) for obj in map(load, files)}
    assert made == {("project", "backend"), ("finetune", "backend"), ("modeldeployment", "coder")}
    watched = re.findall(r"kubectl get (finetune) (\w+) --watch", README)
    watched += re.findall(r"kubectl wait --for=condition=Ready (\w+)/(\w+)", README)
    assert len(watched) == 2
    assert set(watched) < made


def load(path: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((REPOSITORY / path).read_text())
    return found


def test_the_readme_installs_the_chart_with_the_images_that_its_script_builds() -> None:
    values: dict[str, Any] = {}
    for key, value in re.findall(r"--set (\S+)=(\S+)", README):
        *parents, last = key.split(".")
        place = values
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    objects = render_chart(values)
    (settings,) = [obj["data"]["settings.yaml"] for obj in objects if obj["kind"] == "ConfigMap"]
    images = parse_settings(settings).images
    (prefix,) = re.findall(r"PREFIX=(\S+) hack/build-images.sh", README)
    assert [image.removeprefix(prefix) for image in (images.operator, images.trainer, images.server)] == [
        f"codetune-{name}:0.1.0" for name in ("operator", "trainer", "server")
    ]


def test_the_readme_names_commands_of_the_makefile() -> None:
    named = set(re.findall(r"[$`] ?make ([a-z]+)", README))
    assert named >= {"demo", "test"}
    assert named <= set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
