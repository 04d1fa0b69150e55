# One line each; Windows users call tools/dev.py themselves.
PYTHON ?= python3

swiss-roll:
	@$(PYTHON) tools/dev.py swiss-roll $(ARGS)

test:
	@$(PYTHON) tools/dev.py test $(ARGS)

fast:
	@$(PYTHON) tools/dev.py fast $(ARGS)

lint:
	@$(PYTHON) tools/dev.py lint $(ARGS)

types:
	@$(PYTHON) tools/dev.py types $(ARGS)

docs:
	@$(PYTHON) tools/dev.py docs $(ARGS)

web:
	@$(PYTHON) tools/dev.py web $(ARGS)

clean:
	@$(PYTHON) tools/dev.py clean $(ARGS)

.PHONY: swiss-roll test fast lint types docs web clean
