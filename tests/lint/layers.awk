# usage: nm -uA OBJECTS | awk -f layers.awk layers.txt -
# Prints each symbol that an object imports although its folder may not.
FILENAME != "-" {
	if (!/^#/ && NF >= 2) {
		symbol[++n] = "^(" $1 ")$"
		inverted[n] = sub(/^!/, "", $2)
		allowed[n] = $2
	}
	next
}
{
	object = $1
	sub(/:$/, "", object)
	if (match(object, /(^|\/)(server|backend|volumes)\//))
		object = substr(object, RSTART)
	sub(/^\//, "", object)
	name = $NF
	sub(/@.*/, "", name)
	for (i = 1; i <= n; i++) {
		if (name !~ symbol[i])
			continue
		listed = allowed[i] != "NONE" && object ~ allowed[i]
		if (listed == inverted[i]) {
			print object ": may not use " name
			bad = 1
		}
	}
}
END { exit bad }
