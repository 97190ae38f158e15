# Few commands, the same on a desk and in CI. `make help` lists them.

PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin
PACKAGES := api bucket operator trainer_image server_image cli local
SOURCES  := $(PACKAGES) hack tests

.PHONY: help install demo test lint check format generate images clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## Make the virtual environment with everything in it

# --no-deps: the lock names every package, so that what vLLM asks for but nobody here uses (torchvision, torchaudio,
# torchcodec: they fail to load beside the CPU build of torch) never comes in. pip and not uv: uv does not find that build.
$(VENV)/.installed: requirements/lock.txt $(wildcard $(addsuffix /pyproject.toml,$(PACKAGES)))
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements/lock.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation $(addprefix -e ,$(PACKAGES))
	@touch $@

demo: install ## Train and serve on this machine: code in, tuned completion out (about 10 minutes; KEEP=1 leaves it running)
	$(BIN)/python hack/demo.py $(if $(KEEP),--keep)

# Two at a time where tests mostly wait for each other's processes; the real models and servers get the machine alone.
test: install lint ## Everything but the demo (about half an hour on two cores)
	$(BIN)/pytest -q -n 2 --dist loadfile tests/unit tests/conformance tests/integration
	$(BIN)/pytest -q tests/e2e

lint: install ## Style, types, layers, generated files
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy $(addprefix -p codetune_,api bucket operator trainer server store gateway cli local)
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m codetune_api.crd --check
	$(BIN)/python -m codetune_api.reference --check

format: install ## Mend style
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

generate: install ## Write crds/, the chart's copy of them and the API reference from api/
	$(BIN)/python -m codetune_api.crd
	$(BIN)/python -m codetune_api.reference

images: ## Build the images with buildah (root)
	hack/build-images.sh

clean: ## Remove the virtual environment and what the demo left
	-$(BIN)/codetune local down --state .codetune/demo/cluster --delete
	rm -rf $(VENV) .codetune
