#!/usr/bin/env bash
# Usage: testdeps.sh [ENGINE]. Makes sure that what the tests need is on this machine, or fails saying
# what is missing: Node and the npm packages of the end-to-end tests; for the engine postgres PostgreSQL
# 14 or newer, PgBouncer, nginx, a browser, and what a client in Python needs (7 MB); for mysql MariaDB with Galera
# and rsync; without ENGINE all of it. For either, promtool of Prometheus, and zsh and fish.
# Only apt-get needs Debian and root, and only for what is not there yet; elsewhere everything that is missing
# is named at once. MIRROR_PG_BIN, MARIADB_BIN and GALERA_LIB name installations, TEST_POSTGRES_URL and
# TEST_MYSQL_URL servers: then the engine's programs are not asked for, and what cannot run without them is
# said. 'make check' and 'make test-fast' do not need this script at all.
# Quick when all is there; what an interrupted run left half done is done again.
set -euo pipefail
cd "$(dirname "$0")/.."

die() {
	echo "testdeps: $*" >&2
	exit 1
}

# Where this script looks for what is installed; its test looks elsewhere.
root=${TESTDEPS_ROOT:-}
engine=${1:-}
case $engine in
"") echo "testdeps: for every engine" ;;
postgres | mysql) echo "testdeps: for $engine alone; tests that need the other engine are left out" ;;
*) die "there is no engine $engine; choose postgres or mysql" ;;
esac

# One run at a time: two would write into the same folders.
exec 9<tools/testdeps.sh
if command -v flock >/dev/null; then flock 9; fi

# has_postgres succeeds if a folder holds the server programs of PostgreSQL 14 or newer.
has_postgres() {
	local dir major
	for dir in "${MIRROR_PG_BIN:-}" "$root"/usr/lib/postgresql/*/bin "$(dirname "$(command -v postgres || echo /none)")"; do
		[ -x "$dir/initdb" ] && [ -x "$dir/pg_ctl" ] && [ -x "$dir/postgres" ] || continue
		major=$("$dir/postgres" --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/')
		[ "$major" -lt 14 ] || return 0
	done
	return 1
}

has_pgbouncer() {
	PATH=$PATH:$root/usr/sbin command -v pgbouncer >/dev/null
}

# has_python succeeds if there is what generates and runs a client in Python, by Debian's Python if there is one.
has_python() {
	local PATH=$root/usr/bin:$PATH
	command -v protoc >/dev/null && command -v grpc_python_plugin >/dev/null && python3 -c 'import grpc' 2>/dev/null
}

# has_mariadb succeeds if there is MariaDB's server.
has_mariadb() {
	local PATH=${MARIADB_BIN:-/none}:$root/usr/sbin:$PATH
	command -v mariadbd >/dev/null && command -v mariadb-install-db >/dev/null
}

# has_galera succeeds if there is what makes a cluster of several, and what sends data to a node.
has_galera() {
	local PATH=${MARIADB_BIN:-/none}:$PATH lib
	command -v wsrep_sst_rsync >/dev/null && command -v rsync >/dev/null || return 1
	for lib in "${GALERA_LIB:-}" "$root"/usr/lib/galera/libgalera_smm.so "$root"/usr/lib64/galera-4/libgalera_smm.so; do
		[ ! -f "$lib" ] || return 0
	done
	return 1
}

has_promtool() {
	PATH=$PATH:$root/usr/bin command -v promtool >/dev/null
}

# has_shells succeeds if there are the shells that the CLI completes commands in.
has_shells() {
	local PATH=$PATH:$root/usr/bin
	command -v zsh >/dev/null && command -v fish >/dev/null
}

has_nginx() {
	PATH=$PATH:$root/usr/sbin command -v nginx >/dev/null
}

has_bun() {
	server/e2e/lb/node_modules/.bin/bun --version >/dev/null 2>&1
}

# has_chromium succeeds if there is the browser.
has_chromium() {
	PATH=$PATH:$root/usr/bin command -v chromium >/dev/null
}

command -v node >/dev/null || die "node is missing; install Node 20 or newer"
command -v npm >/dev/null || die "npm is missing; install it with Node"
[ "$(node -p 'process.versions.node.split(".")[0]')" -ge 20 ] || die "node $(node --version) is too old; install Node 20 or newer"

# missing names what is not there yet: "PROGRAM|MB|Debian packages|Fedora packages|Homebrew packages".
missing=()
need() { # HAS NAME MB DEB DNF BREW
	"$1" || missing+=("$2|$3|$4|$5|$6")
}
if [ "$engine" != mysql ]; then
	if [ -n "${TEST_POSTGRES_URL:-}" ]; then
		has_postgres || echo "testdeps: TEST_POSTGRES_URL names a server; tests that kill one take that of npm (24 MB)"
		has_pgbouncer || echo "testdeps: NOT RUN without pgbouncer: tests behind a pooler"
	else
		need has_postgres "PostgreSQL 14 or newer (or set MIRROR_PG_BIN, or TEST_POSTGRES_URL)" 60 \
			postgresql postgresql-server postgresql@17
		need has_pgbouncer "pgbouncer" 3 pgbouncer pgbouncer pgbouncer
	fi
	need has_python "protoc, grpc_python_plugin and the Python package grpcio" 7 \
		"python3-grpcio protobuf-compiler-grpc" "python3-grpcio grpc-plugins" "grpc protobuf"
fi
if [ "$engine" != postgres ]; then
	if [ -n "${TEST_MYSQL_URL:-}" ]; then
		has_mariadb || echo "testdeps: NOT RUN without MariaDB's programs: tests that kill a MySQL server"
		has_galera || echo "testdeps: NOT RUN without Galera: tests of a cluster"
	else
		need has_mariadb "MariaDB's server (or set MARIADB_BIN, or TEST_MYSQL_URL)" 290 \
			mariadb-server mariadb-server mariadb
		need has_galera "Galera and rsync (or set GALERA_LIB)" 60 "mariadb-server galera-4 rsync" "galera rsync" "galera rsync"
	fi
fi

need has_promtool "promtool" 100 prometheus golang-github-prometheus prometheus
need has_shells "zsh and fish" 40 "zsh fish" "zsh fish" "zsh fish"
if [ "$engine" != mysql ]; then
	need has_chromium "chromium" 340 chromium chromium chromium
	need has_nginx "nginx" 2 nginx-light nginx nginx
fi

# column prints a column of what is missing, each word once, in one line.
column() {
	printf '%s\n' "${missing[@]}" | cut -d'|' -f"$1" | tr ' ' '\n' | awk '!seen[$0]++' | paste -sd' ' -
}

if [ ${#missing[@]} -gt 0 ]; then
	total=0
	echo "testdeps: missing on this machine:"
	for one in "${missing[@]}"; do
		IFS='|' read -r name mb _ <<<"$one"
		echo "  - $name: about $mb MB"
		total=$((total + mb))
	done
	if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
		read -ra packages <<<"$(column 3)"
		echo "testdeps: installing ${packages[*]}: about $total MB, a few minutes"
		# The daemons of these packages are not wanted, only their programs: runlevel 1 keeps them from starting.
		export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
		apt=(apt-get -y -q -o DPkg::Lock::Timeout=300)
		# What apt-get starts must not inherit the lock. The package lists are refreshed only if that must be.
		(
			dpkg --configure -a
			"${apt[@]}" install --no-install-recommends "${packages[@]}" && exit
			"${apt[@]}" update
			"${apt[@]}" --fix-broken install
			"${apt[@]}" install --no-install-recommends "${packages[@]}"
		) 9<&- || die "apt-get could not install ${packages[*]}"
	else
		if command -v apt-get >/dev/null; then
			echo "testdeps: install them: sudo apt-get install $(column 3)"
		else
			echo "testdeps: install them; their packages are called"
			echo "  - dnf install $(column 4)"
			echo "  - brew install $(column 5)"
			echo "  - apt-get install $(column 3)"
		fi
		die "or run this as root on Debian, name servers of yours with TEST_POSTGRES_URL and TEST_MYSQL_URL," \
			"or run 'make check' or 'make test-fast', which need none of it"
	fi
fi
if [ "$engine" != mysql ] && [ -z "${TEST_POSTGRES_URL:-}" ]; then
	has_postgres || die "PostgreSQL is still missing; set MIRROR_PG_BIN to the folder of its server programs"
	has_pgbouncer || die "pgbouncer is still missing"
fi
[ "$engine" = mysql ] || has_python || die "protoc, grpc_python_plugin or the Python package grpcio is still missing"
if [ "$engine" != postgres ] && [ -z "${TEST_MYSQL_URL:-}" ]; then
	has_mariadb || die "MariaDB is still missing; set MARIADB_BIN to the folder of its programs"
	has_galera || die "Galera is still missing; set GALERA_LIB to the file libgalera_smm.so"
fi

has_promtool || die "promtool is still missing"
has_shells || die "zsh or fish is still missing"
[ "$engine" = mysql ] || has_chromium || die "chromium is still missing"
[ "$engine" = mysql ] || has_nginx || die "nginx is still missing"

tools/npm.sh server/e2e/lb "of the end-to-end tests: about 170 MB, a minute" ||
	die "npm could not install the packages of server/e2e/lb"
# bun's install script, the only one that is run, puts the program of this machine in place.
has_bun || (cd server/e2e/lb && node node_modules/bun/install.js) || die "bun's install script failed"
has_bun || die "bun does not run: server/e2e/lb/node_modules/.bin/bun"
tools/npm.sh client/typescript "that make the TypeScript client: about 45 MB" ||
	die "npm could not install the packages of client/typescript"
