# Every target sets the machine up first; that takes no time when it is.
.PHONY: bootstrap demo demo-vm sabotage test mutants fuzz fleet nightly system vm vm-host vectors check fmt bench lock

bootstrap:
	@scripts/bootstrap

demo: bootstrap  ## the main job, end to end
	@.venv/bin/umec demo

demo-vm:  ## its first links on a machine that really boots: OVMF, Secure Boot, dm-verity, a software TPM (5 minutes; TAMPER=kernel: another attack, TAMPER=all)
	@scripts/bootstrap --vm
	@.venv/bin/umec demo-vm $(if $(TAMPER),--tamper $(TAMPER))

sabotage: bootstrap  ## break each link on purpose: every run must fail and name it
	@scripts/sabotage

test: bootstrap check  ## what must pass before anything lands
	@.venv/bin/pytest -n 2 --dist loadfile -m "not vectors and not system and not vm"

mutants: bootstrap  ## remove each check, one at a time: a test must notice (AREA="core attest" for some of them)
	@.venv/bin/python tests/mutation $(AREA)

SECONDS = 60

fuzz: bootstrap  ## coverage-guided fuzzing of every parser of what others send, SECONDS in all
	@.venv/bin/python tests/fuzz --seconds $(SECONDS)

FLEET_NODES = 10000
FLEET_SECONDS = 600

fleet: bootstrap  ## simulated nodes against a real verifier: no missed round, no false alarm, also where it is killed
	@.venv/bin/python benchmarks/fleet.py --nodes $(FLEET_NODES) --seconds $(FLEET_SECONDS)
	@.venv/bin/python benchmarks/fleet.py --nodes $(FLEET_NODES) --seconds $(FLEET_SECONDS) \
	  --kill-at $$(($(FLEET_SECONDS) / 2))

FUZZ_SECONDS = 3600
FLEET_EVENTS = 1000

nightly: bootstrap  ## the long runs: fleets, a thousand events and tamperings, an hour of fuzzing, every way to open a box, a host that boots, every check removed
	@failed=; \
	  echo "== fleet"; $(MAKE) --no-print-directory fleet || failed="$$failed fleet"; \
	  echo "== simulation"; UMEC_FLEET_EVENTS=$(FLEET_EVENTS) .venv/bin/pytest -q --show-capture=no \
	    tests/attest_service/test_fleet_simulation.py || failed="$$failed simulation"; \
	  echo "== fuzz"; $(MAKE) --no-print-directory fuzz SECONDS=$(FUZZ_SECONDS) || failed="$$failed fuzz"; \
	  echo "== demo-vm"; $(MAKE) --no-print-directory demo-vm TAMPER=all || failed="$$failed demo-vm"; \
	  echo "== vm-host"; $(MAKE) --no-print-directory vm-host || failed="$$failed vm-host"; \
	  echo "== mutants"; $(MAKE) --no-print-directory mutants || failed="$$failed mutants"; \
	  test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

system: bootstrap  ## a whole street of real processes: the demo line by line, restarts and kills of a site
	@.venv/bin/pytest -m system

vm:  ## node images: built twice, booted, tampered with (about 40 s a boot without hardware virtualisation)
	@scripts/bootstrap --vm
	@.venv/bin/pytest -n 2 --dist loadfile -m vm --ignore tests/site/test_boot_host.py

vm-host:  ## a node image that boots and runs an application (five minutes beside others)
	@scripts/bootstrap --vm
	@.venv/bin/pytest -m vm tests/site/test_boot_host.py

vectors: bootstrap  ## the extra target: logs, quotes and bundles written by others
	@.venv/bin/pytest -m vectors tests/vectors

check: bootstrap  ## format, lint, types, import contracts
	@.venv/bin/ruff format --check --quiet .
	@.venv/bin/ruff check --quiet .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-logo

fmt: bootstrap
	@.venv/bin/ruff format --quiet .
	@.venv/bin/ruff check --quiet --fix .

BENCHMARKS = tokens services rules names admission memory fall attest

bench: bootstrap  ## every figure of docs/benchmarks.md
	@failed=; for name in $(BENCHMARKS); do \
	  echo "== $$name"; .venv/bin/python benchmarks/$$name.py || failed="$$failed $$name"; \
	done; test -z "$$failed" || { echo "could not be measured:$$failed"; exit 1; }

lock: bootstrap  ## renew requirements.lock: hashes, and no host
	@.tools/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --all-extras \
	  --python-version 3.11 --upgrade pyproject.toml -o requirements.lock
