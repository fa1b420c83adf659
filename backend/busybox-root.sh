#!/bin/sh
# busybox-root.sh ARCHIVE - makes the default root: Debian's static busybox, a link per applet, users, directories.
# Needs no rights: owners are given to tar as numbers. The same busybox gives the same bytes.
set -eu
archive=$1
busybox=$(command -v busybox) || busybox=/bin/busybox
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
for dir in bin sbin etc home root tmp var var/tmp var/run usr usr/bin usr/sbin usr/local usr/local/bin lib opt run proc sys dev mnt; do
	mkdir -p "$root/$dir"
done
chmod 1777 "$root/tmp" "$root/var/tmp"
chmod 0700 "$root/root"
cp "$busybox" "$root/bin/busybox"
chmod 0755 "$root/bin/busybox"
for applet in $("$busybox" --list); do
	[ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
cat > "$root/etc/passwd" <<-END
	root:x:0:0:root:/root:/bin/sh
	daemon:x:1:1:daemon:/usr/sbin:/bin/false
	nobody:x:65534:65534:nobody:/nonexistent:/bin/false
END
cat > "$root/etc/group" <<-END
	root:x:0:
	daemon:x:1:
	tty:x:5:
	staff:x:50:
	nogroup:x:65534:
END
# what every container gets its own of; as in most images, the places for them are there
: > "$root/etc/hosts"
: > "$root/etc/hostname"
: > "$root/etc/resolv.conf"
chmod 0644 "$root"/etc/*
tar --format=pax --pax-option=delete=atime,delete=ctime --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner \
	-C "$root" -cf "$archive.tmp" .
mv "$archive.tmp" "$archive"
