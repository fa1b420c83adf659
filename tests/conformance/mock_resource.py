"""A root file system with a resource type that prints what the recorded one printed and writes what the recorded
steps read. (The recorded one is an image of its own, which is not in the recordings.)"""
from roots import pack, unpack_busybox

# The version on stdin, of the last object that has one; and a line of its log.
COMMON = r'''#!/bin/sh
input=$(cat)
version=$(echo "$input" | sed -n 's/.*"version":"\([^"]*\)".*/\1/p')
case $input in *mirror_self*) version=mock ;; esac
log() { printf '\033[36mINFO\033[0m[0000] %-44s %b\n' "$1" "$2" >&2; }
'''
CHECK = COMMON + r'''echo "[{\"version\":\"${version:-1}\"}]"
'''
IN = COMMON + r'''log "fetching version: $version" ''
case $input in
*mirror_self*)
	log "mirroring self image" ' \033[36mvia_params\033[0m=false'
	mkdir "$1/rootfs" "$1/rootfs/proc" "$1/rootfs/sys" "$1/rootfs/dev" "$1/rootfs/tmp"
	cp -a /bin /etc /opt /root /usr /var "$1/rootfs/"
	echo '{"env":["MIRRORED_VERSION=mock"],"user":"root"}' >"$1/metadata.json"
	;;
*)
	mkdir "$1/a"
	echo hello >"$1/a/b.txt"
	;;
esac
echo "{\"version\":{\"version\":\"$version\"},\"metadata\":null}"
'''
OUT = COMMON + r'''log "pushing version: $version" ''
echo "{\"version\":{\"version\":\"$version\"},\"metadata\":null}"
'''


def make_archive(directory):
    """rootfs.tgz, as a resource type has it."""
    root = unpack_busybox(directory / "root")
    programs = root / "opt/resource"
    programs.mkdir(parents=True)
    for name, text in (("check", CHECK), ("in", IN), ("out", OUT)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return pack(root, directory / "rootfs.tgz", "w:gz")
