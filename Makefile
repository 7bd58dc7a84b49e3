# One line of help per target stands behind its name: `make help` prints them.
.DEFAULT_GOAL := help
.PHONY: help run test test-browser tests-of-services tests-of-doors faults faults-of-processes faults-in-stories lint bench
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV ?= .venv
python := $(VENV)/bin/python

# Tools that only read the code; they connect to no server.
offline := DEBUG=1 LOG_LEVEL=ERROR ENV_FILE= DATABASE_URL=postgres://nobody@127.0.0.1:1/none REDIS_URL=redis://127.0.0.1:1/0
# What a production site sets, so that `check --deploy` judges what is deployed.
production := ENV_FILE= SITE_URL=https://billing.example.com SECRET_KEY=$$($(python) -c 'import secrets; print(secrets.token_urlsafe(50))') \
	DATABASE_URL=postgres://nobody@127.0.0.1:1/none REDIS_URL=redis://127.0.0.1:1/0

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/installed ## Start everything here and print its addresses (PORT, DATA_DIR, DEMO=0); Ctrl-C stops it
	@exec $(python) -m billing_site.launcher --end-with-parent

test: lint ## Check the code and run every test, on servers of its own
	@$(offline) $(python) -W ignore::RuntimeWarning manage.py makemigrations --check --dry-run
	@$(production) $(python) manage.py check --deploy --fail-level WARNING
	@$(MAKE) --keep-going --jobs 2 --output-sync=line tests-of-services tests-of-doors
	@$(python) -m pytest tests/faults

# Two runs side by side, each on servers of its own: a core for each. What kills servers runs alone, as it wants its ports back.
tests-of-services:
	@$(python) -m pytest tests/services

tests-of-doors:
	@$(python) -m pytest --ignore tests/services --ignore tests/faults

test-browser: $(VENV)/installed-browser ## Use the product in a browser, as people do; installs Chromium where it may (PICTURES=DIRECTORY keeps pictures)
	@sh .ci/browser >/dev/null
	@$(python) -m pytest tests/browser

faults: $(VENV)/installed-dev ## Run the long forms of the fault suites, which make test leaves out; prints what was found per fault
	@found=$$(mktemp); export FAULTS_FOUND=$$found; trap 'rm -f $$found' EXIT; \
	$(MAKE) --keep-going faults-of-processes faults-in-stories; status=$$?; \
	$(python) -m tests.faults.report $$found; exit $$status

faults-of-processes:
	@$(python) -m pytest -m long --ignore tests/faults/test_simulator.py

faults-in-stories: # 200 seeded stories, in two processes
	@$(MAKE) --keep-going --jobs 2 stories-0-99 stories-100-199

stories-%:
	@SIM_SEEDS=$* $(python) -m pytest -m long tests/faults/test_simulator.py

lint: $(VENV)/installed-dev ## Check style, import contracts and types
	@$(python) -m ruff check .
	@$(python) -m ruff format --check .
	@$(VENV)/bin/lint-imports
	@$(offline) $(python) -m mypy

bench: $(VENV)/installed ## Measure, each figure as a ratio to a floor in the same run (ARGS="--only hot --rounds 2")
	@$(python) -m benchmarks $(ARGS)

$(VENV)/installed: requirements.txt
	@sh .ci/install $(PYTHON) $(VENV) requirements.txt
	@touch $@

$(VENV)/installed-dev: requirements-dev.txt requirements.txt
	@sh .ci/install $(PYTHON) $(VENV) requirements-dev.txt
	@touch $@ $(VENV)/installed

$(VENV)/installed-browser: tests/browser/requirements.txt $(VENV)/installed-dev
	@sh .ci/install $(PYTHON) $(VENV) tests/browser/requirements.txt
	@touch $@
