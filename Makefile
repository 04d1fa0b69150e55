# One line each; Windows users call tools/dev.py themselves.
PYTHON ?= python3

swiss-roll:
	@$(PYTHON) tools/dev.py swiss-roll $(ARGS)

test:
	@$(PYTHON) tools/dev.py test $(ARGS)

.PHONY: swiss-roll test
