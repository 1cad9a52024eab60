# make demo   the whole pipeline on the offline demo faces; everything it needs is installed first
# make test   every test, the notebooks at smoke size and the slider in a real browser included
# make lab    JupyterLab with the age slider
# make lint   ruff, over the library, its tools, the tests and the notebooks
# make clean  remove what installing and testing made; runs/ stays

# The first Python that runs and is new enough; name another by `make PYTHON=/path/to/python demo`.
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$python; break; }; done)
ARGS ?=
BIN := .venv/bin
# Huge pages, which Linux often grants only who asks: a training step takes half the time.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
# Threads that wait give their core up sooner: beside one busy program an update of T takes an eighth of the time.
export GOMP_SPINCOUNT ?= 10000
INSTALLED := .venv/installed

.PHONY: install demo test lab lint clean browser latex
.DELETE_ON_ERROR:

install: $(INSTALLED)

$(INSTALLED): pyproject.toml
	@test -n "$(PYTHON)" || { echo "AgeFlow needs Python 3.11 or newer: install it, or name it: make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than 3.11, or does not run"; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv || { echo "no virtual environment: on Debian and Ubuntu, apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --upgrade --quiet pip
	$(BIN)/python -m pip install -e '.[demo,test,dev]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/python -u -m ageflow.batch --dataset demo --preset demo $(ARGS)

# Three workers on two cores, as many tests wait for a process or a browser. Files as they are collected: sorted by
# their number of tests, long single ones come last, and a worker is idle.
# Compiled first: with PYTHONDONTWRITEBYTECODE, usual in containers, each of the tests' processes would do it again.
test: lint browser latex
	$(BIN)/python -m compileall -q ageflow tests tools
	$(BIN)/python -u -m pytest -m "not benchmark" --numprocesses 3 --no-loadscope-reorder $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check ageflow tests tools notebooks
	$(BIN)/ruff format --check ageflow tests tools notebooks

# The slider's test drives a real browser.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || { \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y chromium; \
		else \
			echo "the slider's test needs a browser: install chromium or google-chrome, so that it is on the PATH"; exit 1; \
		fi; }

# One test compiles the tables; pandas writes them for multirow, which Debian keeps in texlive-latex-extra.
latex:
	@command -v pdflatex >/dev/null || { \
		[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends texlive-latex-extra; } || \
		echo "no pdflatex: whether the tables' LaTeX compiles is not tested; install texlive-latex-extra"

# Of a picture over 10 MiB, tornado's own limit, the server would drop the connection without a word.
LARGE_PICTURES := --ServerApp.tornado_settings="{'websocket_max_message_size': 300000000}"

lab: $(INSTALLED)
	$(BIN)/jupyter lab $(LARGE_PICTURES) $(if $(filter 0,$(shell id -u)),--allow-root) notebooks/09_age_slider.ipynb

clean:
	rm -rf .venv build ./*.egg-info .pytest_cache .ruff_cache .hypothesis notebooks/out*.ipynb
	find ageflow tests tools notebooks -name __pycache__ -prune -exec rm -rf {} +
	find notebooks -name .ipynb_checkpoints -prune -exec rm -rf {} +
