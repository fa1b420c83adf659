# usage: awk -f includes.awk includes.txt FILE_LIST SOURCES
# FILE_LIST names every file that an include could mean, one a line. A quoted name is looked up beside the
# including file, from the root, and below backend/, as the compiler does.
function directory(path) {
	return match(path, /.*\//) ? substr(path, 1, RLENGTH) : ""
}
function resolve(from, name) {
	if ((directory(from) name) in exists)
		return directory(from) name
	if (name in exists)
		return name
	return (("backend/" name) in exists) ? "backend/" name : ""
}
function finding(text) {
	print FILENAME ":" FNR ": " text
	bad = 1
}
FNR == 1 { file_number++ }
file_number == 1 {
	if (/^#/ || NF < 2)
		next
	if ($1 ~ /^</) {
		header[++n_headers] = "^" substr($1, 2, length($1) - 2) "$"
		user[n_headers] = $2
	} else {
		from[++n_rules] = $1
		to[n_rules] = $2
	}
	next
}
file_number == 2 { exists[$0] = 1; next }
/^[ \t]*#[ \t]*include[ \t]*</ {
	match($0, /<[^>]*>/)
	name = substr($0, RSTART + 1, RLENGTH - 2)
	for (i = 1; i <= n_headers; i++)
		if (name ~ header[i] && FILENAME !~ user[i])
			finding("may not include <" name ">")
}
/^[ \t]*#[ \t]*include[ \t]*"/ {
	match($0, /"[^"]*"/)
	name = substr($0, RSTART + 1, RLENGTH - 2)
	target = resolve(FILENAME, name)
	if (target == "") {
		finding("includes \"" name "\", which is not there")
		next
	}
	if (target ~ /^api-spec\/.*\.def$/)
		next
	for (i = 1; i <= n_rules; i++)
		if (FILENAME ~ from[i] && target !~ to[i])
			finding("may not include " target)
}
END { exit bad }
