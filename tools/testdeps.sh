#!/usr/bin/env bash
# Usage: testdeps.sh [ENGINE]. Makes sure that what the tests need is on this machine, or fails saying
# what is missing: Node and the npm packages of the end-to-end tests; for the engine postgres PostgreSQL
# 14 or newer, PgBouncer, and what a client in Python needs (7 MB); for mysql MariaDB with Galera and rsync;
# without ENGINE all of it.
# Only apt-get needs Debian and root, and only for what is not there yet: MIRROR_PG_BIN, MARIADB_BIN and
# GALERA_LIB name installations elsewhere, and 'make test-fast' does not need this script at all.
# Quick when all is there; what an interrupted run left half done is done again.
set -euo pipefail
cd "$(dirname "$0")/.."

die() {
	echo "testdeps: $*" >&2
	exit 1
}

engine=${1:-}
case $engine in
"") echo "testdeps: for every engine" ;;
postgres | mysql) echo "testdeps: for $engine alone; tests that need the other engine are left out" ;;
*) die "there is no engine $engine; choose postgres or mysql" ;;
esac

# One run at a time: two would write into the same folders. What apt-get starts must not inherit the lock.
exec 9<tools/testdeps.sh
if command -v flock >/dev/null; then flock 9; fi

# install_deb PACKAGE installs a Debian package, refreshing the package lists only if it must.
install_deb() {
	local else="or run 'make test-fast', which needs Go and Postgres alone"
	command -v apt-get >/dev/null || die "$1 is missing and there is no apt-get; install it by hand, $else"
	[ "$(id -u)" = 0 ] || die "$1 is missing; install it (apt-get install $1), run this as root, $else"
	echo "testdeps: installing $1"
	# The daemons of these packages are not wanted, only their programs: runlevel 1 keeps them from starting.
	export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
	local apt=(apt-get -y -q -o DPkg::Lock::Timeout=300)
	dpkg --configure -a
	"${apt[@]}" install --no-install-recommends "$1" && return
	"${apt[@]}" update
	"${apt[@]}" --fix-broken install
	"${apt[@]}" install --no-install-recommends "$1" || die "apt-get could not install $1"
}

# has_postgres succeeds if a folder holds the server programs of PostgreSQL 14 or newer.
has_postgres() {
	local dir major
	for dir in "${MIRROR_PG_BIN:-}" /usr/lib/postgresql/*/bin "$(dirname "$(command -v postgres || echo /none)")"; do
		[ -x "$dir/initdb" ] && [ -x "$dir/pg_ctl" ] && [ -x "$dir/postgres" ] || continue
		major=$("$dir/postgres" --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/')
		[ "$major" -lt 14 ] || return 0
	done
	return 1
}

has_pgbouncer() {
	PATH=$PATH:/usr/sbin command -v pgbouncer >/dev/null
}

# has_python succeeds if there is what generates and runs a client in Python, by Debian's Python if there is one.
has_python() {
	local PATH=/usr/bin:$PATH
	command -v protoc >/dev/null && command -v grpc_python_plugin >/dev/null && python3 -c 'import grpc' 2>/dev/null
}

# has_mariadb succeeds if there is MariaDB's server. TEST_MYSQL_URL does not stand in for it: tests kill servers
# of their own.
has_mariadb() {
	local PATH=${MARIADB_BIN:-/none}:/usr/sbin:$PATH
	command -v mariadbd >/dev/null && command -v mariadb-install-db >/dev/null
}

# has_galera succeeds if there is what makes a cluster of several, and what sends data to a node.
has_galera() {
	local PATH=${MARIADB_BIN:-/none}:$PATH lib
	command -v wsrep_sst_rsync >/dev/null && command -v rsync >/dev/null || return 1
	for lib in "${GALERA_LIB:-}" /usr/lib/galera/libgalera_smm.so /usr/lib64/galera-4/libgalera_smm.so; do
		[ ! -f "$lib" ] || return 0
	done
	return 1
}

# has_packages succeeds if the last step of install_packages was reached for this lock file.
has_packages() {
	[ "$(cat node_modules/.complete 2>/dev/null)" = "$(cksum <package-lock.json)" ] &&
		node_modules/.bin/bun --version >/dev/null 2>&1
}

# install_packages runs one install script only, bun's, which puts the program of this machine in place.
install_packages() {
	echo "testdeps: installing the npm packages of the end-to-end tests"
	npm ci --ignore-scripts --no-audit --no-fund --loglevel=error &&
		node node_modules/bun/install.js &&
		cksum <package-lock.json >node_modules/.complete
}

command -v node >/dev/null || die "node is missing; install Node 20 or newer"
command -v npm >/dev/null || die "npm is missing; install it with Node"
[ "$(node -p 'process.versions.node.split(".")[0]')" -ge 20 ] || die "node $(node --version) is too old; install Node 20 or newer"
if [ "$engine" != mysql ]; then
	has_postgres || install_deb postgresql 9<&-
	has_postgres || die "PostgreSQL 14 or newer is missing; install it, or set MIRROR_PG_BIN to the folder of its server programs"
	has_pgbouncer || install_deb pgbouncer 9<&-
	has_pgbouncer || die "pgbouncer is missing; install it"
	for package in python3-grpcio protobuf-compiler-grpc; do
		has_python || install_deb "$package" 9<&-
	done
	has_python || die "protoc, grpc_python_plugin or the Python package grpcio is missing; install them"
fi
if [ "$engine" != postgres ]; then
	has_mariadb || install_deb mariadb-server 9<&-
	has_mariadb || die "MariaDB is missing; install its server, or set MARIADB_BIN to the folder of its programs"
	for package in mariadb-server galera-4 rsync; do
		has_galera || install_deb "$package" 9<&-
	done
	has_galera || die "Galera is missing; install galera-4 and rsync, or set GALERA_LIB to the file libgalera_smm.so"
fi

cd server/e2e/lb
has_packages || install_packages || die "npm could not install the packages of server/e2e/lb"
has_packages || die "bun does not run: server/e2e/lb/node_modules/.bin/bun"
