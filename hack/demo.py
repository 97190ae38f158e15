"""The whole path on one machine: three resources in, a tuned completion out.

Starts a local cluster and the operator, applies examples/local, shows the run, serves base and tuned model with vLLM
and puts one completion of each side by side.
"""

import argparse
import json
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request
from pathlib import Path
from typing import Any

from demo_model import main as make_model
from demo_repository import make_repository
from laptop import REPOSITORY, Laptop

EXAMPLES = REPOSITORY / "examples" / "local"
PROMPT = "async def forget_resource(\n        *,\n        settings: configuration.OperatorSettings,\n"
STARTED = time.monotonic()


def say(text: str) -> None:
    """A line of the story, with the time since its start."""
    seconds = int(time.monotonic() - STARTED)
    print(f"\033[1m[{seconds // 60}:{seconds % 60:02d}]\033[0m {text}", flush=True)


def main() -> int:
    """Tell the story; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave cluster and operator running")
    parser.add_argument("--state", type=Path, default=REPOSITORY / ".codetune" / "demo")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the finally below must run
    laptop = Laptop(options.state)
    done = False
    try:
        run(laptop)
        done = True
    except RuntimeError as error:
        print(f"\nThe demo stopped: {error}\nThe operator's log is {laptop.state / 'operator.log'}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopping …", file=sys.stderr)
        return 130
    finally:
        if not (options.keep and done):
            laptop.stop()
    if options.keep:
        print_what_to_try(laptop)
    return 0


def run(laptop: Laptop) -> None:
    """The six steps."""
    say("Preparing a base model and a repository")
    files = prepare(laptop.state / "files")
    say("Starting a local cluster and the operator")
    laptop.start_cluster()
    laptop.start_operator(laptop.install({"settings": {"fileRoot": str(files), "endpoint": "ClusterIP"}}))
    say("kubectl apply -f examples/local/project.yaml -f examples/local/finetune.yaml")
    remove_previous(laptop)
    laptop.kubectl("apply", "-f", str(EXAMPLES / "project.yaml"), "-f", str(EXAMPLES / "finetune.yaml"))
    watch_training(laptop)
    say("kubectl apply -f examples/local/modeldeployment.yaml")
    laptop.kubectl("apply", "-f", str(EXAMPLES / "modeldeployment.yaml"))
    laptop.kubectl("wait", "--for=condition=Ready", "--timeout=300s", "modeldeployment/smollm2")
    print(laptop.kubectl("get", "codetune"))
    report(laptop)


def prepare(files: Path) -> Path:
    """What `file:///…` in the examples stands for; made once."""
    model = files / "SmolLM2-135M-Instruct"
    if not (model / "config.json").exists() and make_model([str(model)]):
        raise RuntimeError("the base model could not be prepared: see the message above")
    make_repository("kopf", files / "kopf.git")
    return files.resolve()


def remove_previous(laptop: Laptop) -> None:
    """A demo that was kept starts over."""
    laptop.kubectl("delete", "--ignore-not-found", "--timeout=120s", "-f", str(EXAMPLES))


def watch_training(laptop: Laptop) -> None:
    """Show the run until it ends. Raises: RuntimeError with the failure that stands in status."""
    command = laptop.kubectl_command("get", "finetune", "kopf", "--watch", "-o", 'jsonpath={.status}{"\\n"}')
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watch:
        try:
            shown = ""
            for line in watch.stdout or ():
                status = json.loads(line) if line.strip() else {}
                if (text := progress_line(status)) != shown:
                    shown = text
                    say(text)
                if status.get("phase") == "Succeeded":
                    return
                if status.get("phase") == "Failed":
                    failure = status.get("failure", {})
                    raise RuntimeError(f"{failure.get('reason')}: {failure.get('message')} {failure.get('hint', '')}")
            raise RuntimeError("the watch on the FineTune ended early")
        finally:
            watch.kill()


def progress_line(status: dict[str, Any]) -> str:
    """One line about a run: phase, percent, loss, remaining time."""
    progress = status.get("progress") or {}
    if status.get("phase") != "Running" or not progress.get("totalSteps"):
        return f"FineTune {status.get('phase', 'Pending')} {progress.get('stage', '')}".rstrip()
    percent = progress.get("percent", 0)
    bar = "#" * int(percent / 4)
    loss = progress.get("loss")
    parts = [f"{bar:<25} {percent:5.1f} %", f"step {progress.get('step', 0)}/{progress['totalSteps']}"]
    parts += [f"loss {loss:.3f}"] if loss is not None else []
    parts += [f"remaining {status['remaining']}"] if status.get("remaining") else []
    return "  ".join(parts)


def report(laptop: Laptop) -> None:
    """Evaluation, and one completion of each model. Raises: RuntimeError when both complete the same."""
    status = json.loads(laptop.kubectl("get", "finetune", "kopf", "-o", "json"))["status"]
    evaluation = status["evaluation"]
    print(f"Held-out loss: base {evaluation['base']['loss']:.3f}, tuned {evaluation['tuned']['loss']:.3f}")
    print(f"Improvement:   {evaluation['improvement']:.1%}  ({evaluation.get('message', '')})\n")
    endpoint = json.loads(laptop.kubectl("get", "modeldeployment", "smollm2", "-o", "json"))["status"]["endpoint"]
    base, tuned = (complete(endpoint, model) for model in ("smollm2", "kopf"))
    print("The prompt:\n" + textwrap.indent(PROMPT, "    "))
    for title, text in (("The base model goes on:", base), ("The tuned model goes on:", tuned)):
        print(f"\n{title}\n{textwrap.indent(text.rstrip(), '    ')}")
    if base == tuned:
        raise RuntimeError("base and tuned model gave the same completion")


def complete(endpoint: str, model: str) -> str:
    """A greedy completion of the prompt."""
    body = {"model": model, "prompt": PROMPT, "max_tokens": 64, "temperature": 0}
    request = urllib.request.Request(
        f"{endpoint}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        text: str = json.load(answer)["choices"][0]["text"]
    return text


def print_what_to_try(laptop: Laptop) -> None:
    """Three commands for a demo that was kept."""
    kubectl = " ".join(laptop.kubectl_command())
    print(f"\nIt goes on running. Try:\n  {kubectl} get codetune\n  {kubectl} describe finetune kopf")
    print(f"  {kubectl} logs -l codetune.dev/finetune=kopf --tail=20")
    print(f"Stop it: kill {laptop.operator.pid if laptop.operator else ''} && ", end="")
    print(f"{Path(sys.executable).parent / 'codetune'} local down --state {laptop.state / 'cluster'}")


if __name__ == "__main__":
    sys.exit(main())
