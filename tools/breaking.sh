#!/usr/bin/env bash
# Usage: breaking.sh [REF]. Says what in proto/ breaks the clients of the API as it is at REF; without
# a REF, at origin/main, or one commit back where origin/main is absent or is this very commit.
set -euo pipefail
cd "$(dirname "$0")/.."

commit() { git rev-parse --quiet --verify "$1^{commit}"; }

ref=${1:-origin/main}
if [ $# = 0 ] && [ "$(commit "$ref")" = "$(commit HEAD)" ]; then ref=HEAD~1; fi
if [ $# = 0 ] && ! commit "$ref" >/dev/null; then ref=HEAD~1; fi
if ! commit "$ref" >/dev/null; then
	[ $# = 0 ] || { echo "breaking: there is no commit $ref here; fetch it first" >&2; exit 1; }
	echo "breaking: no earlier commit to compare with"
	exit
fi
if [ -z "$(git ls-tree -r "$ref" -- buf.yaml)" ] || [ -z "$(git ls-tree -r "$ref" -- proto)" ]; then
	echo "breaking: $ref has no proto files to compare with"
	exit
fi

# Buf cannot read REF from git itself: .protodeps, which buf.yaml names, is in no commit.
base=$(mktemp -d)
trap 'rm -rf "$base"' EXIT
git archive "$ref" buf.yaml proto | tar -x -C "$base"
cp -R .protodeps "$base/.protodeps"
go tool -modfile=tools/buf/go.mod buf breaking --against "$base"
echo "breaking: nothing breaks the clients of $ref"
