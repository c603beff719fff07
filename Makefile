# Everything is run from here, on a machine that has Go, Node, gcc and git.
# `make help` lists the targets, with the time each takes on two cores when its
# tools and dependencies are there.

MAKEFLAGS += --warn-undefined-variables --no-builtin-rules
.DEFAULT_GOAL := help
SHELL := /bin/bash

# Each tool has a module of its own, so that its requirements never become ours.
BUF  := go tool -modfile=tools/buf/go.mod buf
SQLC := go tool -modfile=tools/sqlc/go.mod sqlc
LINT := go tool -modfile=tools/golangci-lint/go.mod golangci-lint

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
BASE ?=
FUZZTIME ?= 30s
ENGINE ?=
# PostgreSQL 15 and MariaDB are those of "make test".
ENGINES ?= postgres14 postgres16 postgres17 postgres18 pgbouncer mysql9 galera vitess vitess4
FAMILIES ?= postgres18 pgbouncer mysql9 galera vitess vitess4

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

.PHONY: run
run: build ## start the service with an embedded Postgres and a fake Liveblocks
	@[ -t 0 ] || exec bin/liveblocks-mirror demo; \
	set -m; bin/liveblocks-mirror demo; exit $$? # in a process group of its own: Ctrl-C ends it, not make

.PHONY: build
build: go ## build bin/liveblocks-mirror
	@tools/build.sh $(VERSION)

.PHONY: dist
dist: go ## write archives, Debian packages and checksums for all platforms to dist/
	@tools/dist.sh $(VERSION)

.PHONY: gen
gen: gen-proto gen-sql gen-docs gen-ts ## regenerate code and documents

.PHONY: gen-proto
gen-proto: protodeps
	$(BUF) generate
	mkdir -p gen/descriptors gen/openapi
	$(BUF) build proto --as-file-descriptor-set -o gen/descriptors/mirror.binpb
	cp tools/descriptors/descriptors.go.txt gen/descriptors/descriptors.go
	go run ./gateway/internal/openapi .openapi gen/descriptors/mirror.binpb > gen/openapi/openapi.json
	cp tools/openapi/openapi.go.txt gen/openapi/openapi.go

.PHONY: gen-sql
gen-sql: go
	set -e; for config in server/internal/store/*/sqlc.yaml; do $(SQLC) generate -f "$$config"; done

.PHONY: gen-docs
gen-docs: go
	set -e; for doc in API.md EVENTS.md CONFIGURATION.md METRICS.md; do \
		go run ./server/internal/run/docgen $$doc > docs/$$doc.new; mv docs/$$doc.new docs/$$doc; done

.PHONY: gen-ts
gen-ts: node
	tools/npm.sh client/typescript "that make the TypeScript client: about 45 MB"
	npm --prefix client/typescript run --silent gen

.PHONY: pack-ts
pack-ts: node ## write the npm package of the TypeScript client to dist/
	tools/npm.sh client/typescript "that make the TypeScript client: about 45 MB"
	mkdir -p dist
	cd client/typescript && npm pack --silent --pack-destination ../../dist

.PHONY: protodeps
protodeps: go ## write the third-party .proto files that buf reads to .protodeps
	go -C tools/protodeps run . -o ../../.protodeps

.PHONY: lint
lint: protodeps ## check the style of .proto, Go and Markdown files, and go.mod (2 min)
	$(BUF) lint
	$(BUF) format -d --exit-code proto
	go mod tidy -diff
	go test ./docs
	$(LINT) run

.PHONY: breaking
breaking: protodeps ## compare the API with that of BASE, by default origin/main
	tools/breaking.sh $(BASE)

.PHONY: check
check: lint ## the check before a commit: lint, and the tests that need no server (4 min)
	go test -short -race ./...

# The end-to-end tests run the service as a process of its own, which the race detector
# of a test does not see. Two packages run statements by the thousand, which it makes several times slower, and nothing
# at once that store/engine and serve/rest do not run with it: the tests of the contract suite, and comparisons of queries.
unraced := ./server/internal/store/storetest ./server/internal/serve/rest/selects
raced = $$(go list ./... | grep -v -e /server/e2e/ -e /store/storetest$$ -e /rest/selects$$)
# What test-fast leaves out besides: tests that need PgBouncer, promtool, or Node and its packages.
needs_more := Promtool|PgBouncer|TestPooler|TestInstall|EqualYjs$$|EqualThePackage$$

.PHONY: test-fast
test-fast: go ## all that Go and Postgres alone can test, without the race detector (3 min)
	@echo 'test-fast leaves out server/e2e, MySQL and tests called $(needs_more); "make test" runs all'
	TEST_ENGINES=postgres go test -skip '$(needs_more)' $(raced) $(unraced)

.PHONY: test
test: go node ## every test; ENGINE=postgres or ENGINE=mysql leaves the other engine out (22 min)
	tools/testdeps.sh $(ENGINE)
	TEST_ENGINES=$(ENGINE) go test -race -shuffle=on -timeout=20m $(raced)
	TEST_ENGINES=$(ENGINE) go test -shuffle=on -timeout=20m $(unraced) ./server/e2e/...
	@$(MAKE) --no-print-directory test-chart

# on runs the tests of $(2) on each engine of $(1). What cannot be had or fails does not keep the others from running.
# One gateway of Vitess serves all tests, so few run at once there.
define on
failed=; for engine in $(1); do echo "== $$engine"; begin=$$SECONDS; few=; \
	case $$engine in vitess*) few="-p 1 -parallel 3";; esac; \
	tools/engine.sh $$engine go test -timeout=30m $$few $(2) || failed="$$failed $$engine"; \
	echo "== $$engine took $$((SECONDS - begin)) s"; done; \
	[ -z "$$failed" ] || { echo "failed or not to be had:$$failed" >&2; exit 1; }
endef
e2e := ./server/e2e/crash ./server/e2e/blackbox

.PHONY: test-chart
test-chart: go ## the Helm chart alone (1 min the first time)
	@# Not from the cache: Go does not see that a file outside of the module has changed.
	go -C tools/helm test -count=1 ./...

.PHONY: test-engines
test-engines: go node ## the tests of stores and the end-to-end tests on other versions; ENGINES=mysql9 chooses
	$(call on,$(ENGINES),./server/internal/store/... $(e2e))

.PHONY: test-families
test-families: go node ## the contract on every other engine, end-to-end tests on one of each family (for CI: within 60 min)
	tools/testdeps.sh
	@$(MAKE) --no-print-directory --keep-going contract families

# PgBouncer is in front of one PostgreSQL; "make test-engines" puts it in front of the others too.
.PHONY: contract families
contract:
	$(call on,$(filter-out pgbouncer,$(ENGINES)),-run 'TestContract$$|TestLockedRowsDoNotExpire$$|TestDueOfAFailingShard$$' ./server/internal/store/engine)
	$(call on,$(filter pgbouncer,$(ENGINES)),-run 'TestContractThroughPgBouncer$$' ./server/internal/store/engine)
families:
	$(call on,$(FAMILIES),$(e2e))

.PHONY: bench
bench: go ## compare the service with plain code on this machine; ENGINE=mysql uses MariaDB
	go run ./server/e2e/bench -engine $(or $(ENGINE),postgres)

.PHONY: fuzz
fuzz: go ## run each fuzz test for FUZZTIME, by default 30 s
	tools/fuzz.sh $(FUZZTIME)

.PHONY: go node
go node:
	@command -v $@ >/dev/null || { echo "make: '$@' is not on the PATH; install it first (README.md says which version)" >&2; exit 1; }
