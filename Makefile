# Seven words. Each is a word of start.py, which makes the environment first; on a machine without
# make, type `python3 start.py WORD` instead.
PYTHON ?= python3

.PHONY: setup check test fast docs bench results

setup: ## make the environment and install, for use and for development
check: ## lint, format, types, import directions
test: ## everything
fast: ## the tests of all that learns nothing, but for the slow ones
docs: ## every link, command, option and example that the documentation names
bench: ## speed and memory, as ratios measured in one run
results: ## every method on the data that ZEROLABEL_DATA holds; writes docs/results.md again

setup check test fast docs bench results:
	@$(PYTHON) start.py $@ $(ARGS)
