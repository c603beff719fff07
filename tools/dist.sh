#!/usr/bin/env bash
# Usage: dist.sh VERSION. Writes into dist/ what is given to others: an archive of the program for each
# platform, Debian packages, and their checksums. Two runs of one commit with one version of Go write the
# same bytes. Needs GNU tar.
set -euo pipefail
cd "$(dirname "$0")/.."

version=${1#v}
# Packages need a version that begins with a number: a commit without a tag is older than all that have one.
[[ $version =~ ^[0-9] && $version == *.* ]] || version=0.0.0-$version
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

rm -rf dist
for platform in ${PLATFORMS:-linux/amd64 linux/arm64 darwin/arm64}; do
	os=${platform%/*} arch=${platform#*/}
	echo "dist: $os $arch" >&2
	GOOS=$os GOARCH=$arch GOAMD64=v1 GOARM64=v8.0 tools/build.sh "$1" "dist/${os}_$arch/liveblocks-mirror"
	tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=u=rwx,go=rx \
		-C "dist/${os}_$arch" -c liveblocks-mirror | gzip -n9 >"dist/liveblocks-mirror_${version}_${os}_$arch.tar.gz"
	[ "$os" = linux ] || continue
	ARCH=$arch VERSION=$version go tool -modfile=tools/nfpm/go.mod nfpm package -f deploy/nfpm.yaml -p deb -t dist/ >&2
done
(cd dist && sha256sum -- *.tar.gz *.deb | tee SHA256SUMS)
