# `make demo` and `make test` do everything on a machine that has Python, pip and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Sentences of reviews, inside a source package.
REVIEWS := work/data/reviews
# The exact versions that CI uses; they need Python 3.11 or newer.
CONSTRAINTS := $(shell $(PYTHON) -c "import sys; print('-c constraints.txt' * (sys.version_info >= (3, 11)))")

.PHONY: demo docs test first-half second-half test-fast floors reference results results-quick check format install clean

demo: $(INSTALLED)  ## the whole story on bundled real data
	$(BIN)/aft-ray demo

# Two halves side by side, since tests of Ray mostly wait. Where make can, each prints when it is over, not among the other's lines.
FIRST_HALF := tests/cluster tests/commands tests/datasets tests/extraction tests/test_cli.py
test: $(INSTALLED)  ## every test
	@echo "two halves of the tests, side by side, some twenty minutes each on two cores; 'make first-half' alone shows how far it is"
	@$(MAKE) --no-print-directory --keep-going --jobs 2 $(filter --output-sync,$(addprefix --,$(.FEATURES))) first-half second-half

first-half: $(INSTALLED)
	$(BIN)/python -m pytest --durations 20 $(FIRST_HALF)

second-half: $(INSTALLED)
	$(BIN)/python -m pytest --durations 20 $(addprefix --ignore=,$(FIRST_HALF))

test-fast: $(INSTALLED)  ## a minute: no test that starts Ray or other processes, no file of tests that takes long
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not ray and not processes and not slow"

floors: $(INSTALLED)  ## speeds as ratios to plain code, two minutes; fails below a floor, the second time
	$(BIN)/python jobs/benchmarks/floors.py

reference: $(INSTALLED)  ## writes the page and the schema of all keys of a recipe from the models
	$(BIN)/aft-ray keys --as markdown > docs/recipe.md
	$(BIN)/aft-ray keys --as schema > aft_ray/recipe/schema.json

results: $(INSTALLED) $(REVIEWS)  ## do the claims hold? hours; again to go on; writes docs/results.md
	$(BIN)/python jobs/recipes/results/prepare.py
	for study in scratch pretrained ours teachers ablations; do \
		$(BIN)/aft-ray study jobs/recipes/results/$$study.yaml --skip-faulty || exit; done
	$(BIN)/python jobs/recipes/results/page.py

results-quick: $(INSTALLED) $(REVIEWS)  ## two settings with few seeds, minutes; writes work/results/quick.md
	$(BIN)/aft-ray study jobs/recipes/results/quick.yaml
	$(BIN)/python jobs/recipes/results/page.py --quick

$(REVIEWS): | $(INSTALLED)
	$(BIN)/python -m pip download --quiet --no-deps --no-binary vaderSentiment --dest $@ vaderSentiment==3.3.2

docs: $(INSTALLED)  ## the pages as a site in work/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

check: $(INSTALLED) docs  ## lint, format, types, and the site of the pages, in a second
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode $(CONSTRAINTS) -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) work
