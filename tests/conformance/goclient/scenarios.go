package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/url"
	"reflect"
	"strings"
	"sync"
)

// box is the container of a scenario.
type box struct {
	client    *client
	handle    string
	destroyed bool // by the scenario itself
}

// scenarios are whole stories of a client, each with a fresh container from the default root.
var scenarios = map[string]func(*box) error{
	"plain-calls":              plainCalls,
	"properties":               properties,
	"run":                      runBothStreams,
	"run-without-streams":      runWithoutStreams,
	"run-with-stdout-only":     runWithStdoutOnly,
	"stdin":                    stdin,
	"stdin-large":              stdinLarge,
	"stdin-that-nobody-reads":  stdinThatNobodyReads,
	"signal-after-stdin-ended": signalAfterStdinEnded,
	"signals":                  signals,
	"signal-at-once":           signalAtOnce,
	"tty":                      tty,
	"tty-burst":                ttyBurst,
	"user-and-environment":     userAndEnvironment,
	"attach":                   attach,
	"attach-by-many":           attachByMany,
	"attach-after-exit":        attachAfterExit,
	"client-that-vanishes":     clientThatVanishes,
	"errors":                   typedErrors,
	"large-output":             largeOutput,
	"large-output-on-both":     largeOutputOnBoth,
	"runs-in-parallel":         runsInParallel,
	"stop":                     stop,
	"destroy-while-running":    destroyWhileRunning,
}

func shell(script string) object {
	return object{"path": "/bin/sh", "args": []string{"-c", script}}
}

// equal fails unless two values are the same.
func equal(what string, got, want interface{}) error {
	if reflect.DeepEqual(got, want) {
		return nil
	}
	return fmt.Errorf("%s: got %.300q, want %.300q", what, fmt.Sprint(got), fmt.Sprint(want))
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// watched is a buffer in which one can wait for a text.
type watched struct {
	mutex   sync.Mutex
	changed *sync.Cond
	data    bytes.Buffer
}

func newWatched() *watched {
	w := new(watched)
	w.changed = sync.NewCond(&w.mutex)
	return w
}

func (w *watched) Write(data []byte) (int, error) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.changed.Broadcast()
	return w.data.Write(data)
}

func (w *watched) String() string {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.data.String()
}

// await returns when the text has come; the caller's guard ends a wait in vain.
func (w *watched) await(text string) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	for !strings.Contains(w.data.String(), text) {
		w.changed.Wait()
	}
}

// finish runs a process to its end and compares its exit status and its two outputs.
func (b *box) finish(spec object, input string, status int, stdout, stderr string) error {
	var out, err bytes.Buffer
	p, failure := b.client.run(b.handle, spec, streams{strings.NewReader(input), &out, &err})
	if failure != nil {
		return failure
	}
	return first(waitFor(p, status), equal("stdout", out.String(), stdout),
		equal("stderr", err.String(), stderr))
}

func waitFor(p *process, status int) error {
	got, err := p.wait()
	if err != nil {
		return err
	}
	return equal("exit status", got, status)
}

func plainCalls(b *box) error {
	var capacity, list, info object
	var bulk map[string]struct {
		Info object
		Err  *apiError
	}
	c := b.client
	err := first(
		c.call("GET", "/ping", nil, nil),
		c.call("GET", "/capacity", nil, &capacity),
		c.call("GET", "/containers", nil, &list),
		c.call("GET", containerPath(b.handle, "info"), nil, &info),
		c.call("GET", "/containers/bulk_info?handles="+b.handle+",nobody", nil, &bulk),
		c.call("PUT", containerPath(b.handle, "grace_time"), 600000000000, nil),
	)
	if err != nil {
		return err
	}
	for _, key := range []string{"memory_in_bytes", "disk_in_bytes", "max_containers"} {
		if n, ok := capacity[key].(float64); !ok || n <= 0 {
			return fmt.Errorf("capacity: %v", capacity)
		}
	}
	if !strings.Contains(fmt.Sprint(list["Handles"]), b.handle) {
		return fmt.Errorf("not listed: %v", list)
	}
	if bulk["nobody"].Err == nil || bulk[b.handle].Err != nil {
		return fmt.Errorf("bulk info: %+v", bulk)
	}
	return first(equal("state", info["State"], "active"),
		equal("error of bulk info", bulk["nobody"].Err.Message, "unknown handle: nobody"),
		equal("state by bulk info", bulk[b.handle].Info["State"], "active"))
}

func properties(b *box) error {
	const key, value = "a b/c", "d&e=f \u00e9"
	path := containerPath(b.handle, "properties", key)
	var got struct {
		Value string `json:"value"`
	}
	var list struct{ Handles []string }
	var failure *apiError
	err := first(
		b.client.call("PUT", path, object{"value": value}, nil),
		b.client.call("GET", path, nil, &got),
		b.client.call("GET", "/containers?"+url.Values{key: {value}}.Encode(), nil, &list),
		b.client.call("DELETE", path, nil, nil),
		b.client.call("DELETE", path, nil, nil),
	)
	if err != nil {
		return err
	}
	err = first(equal("value", got.Value, value), equal("handles", list.Handles, []string{b.handle}))
	if err != nil {
		return err
	}
	if !errors.As(b.client.call("GET", path, nil, nil), &failure) {
		return errors.New("the property is still there")
	}
	return first(equal("status", failure.Status, 500),
		equal("message", failure.Message, "property does not exist: "+key))
}

func runBothStreams(b *box) error {
	return b.finish(shell("echo out; echo err >&2; exit 7"), "", 7, "out\n", "err\n")
}

func runWithoutStreams(b *box) error {
	p, err := b.client.run(b.handle, shell("exit 3"), streams{})
	if err != nil {
		return err
	}
	return waitFor(p, 3)
}

func runWithStdoutOnly(b *box) error {
	out := new(bytes.Buffer)
	p, err := b.client.run(b.handle, shell("echo out; echo err >&2"), streams{stdout: out})
	if err != nil {
		return err
	}
	return first(waitFor(p, 0), equal("stdout", out.String(), "out\n"))
}

func stdin(b *box) error {
	text := "hello\n<&>\u00e9\u0000\U0001f331\n"
	return b.finish(object{"path": "cat"}, text, 0, text, "")
}

func stdinLarge(b *box) error {
	text := strings.Repeat("0123456789abcde\n", 256*1024)
	sum := sha256.Sum256([]byte(text))
	return b.finish(shell("sha256sum | cut -d' ' -f1"), text, 0, hex.EncodeToString(sum[:])+"\n", "")
}

func stdinThatNobodyReads(b *box) error {
	return b.finish(shell("exit 0"), strings.Repeat("x", 1024), 0, "", "")
}

func signalAfterStdinEnded(b *box) error {
	out := newWatched()
	script := "trap 'exit 42' TERM; cat; echo ended; while :; do sleep 0.1; done"
	p, err := b.client.run(b.handle, shell(script), streams{stdin: strings.NewReader("in\n"), stdout: out})
	if err != nil {
		return err
	}
	out.await("ended\n")
	return first(p.signal(signalTerminate), waitFor(p, 42), equal("stdout", out.String(), "in\nended\n"))
}

func signals(b *box) error {
	for _, one := range []struct {
		script         string
		number, status int
	}{
		{"trap 'exit 42' TERM; echo ready; while :; do sleep 0.1; done", signalTerminate, 42},
		{"trap '' TERM; echo ready; exec sleep 1000", signalKill, 137},
		{"echo ready; exec sleep 1000", signalKill, 137},
		{"echo ready; exec sleep 1000", signalTerminate, 143},
	} {
		out := newWatched()
		p, err := b.client.run(b.handle, shell(one.script), streams{stdout: out})
		if err != nil {
			return err
		}
		out.await("ready\n")
		if err := first(p.signal(one.number), waitFor(p, one.status)); err != nil {
			return fmt.Errorf("%s: %v", one.script, err)
		}
	}
	return nil
}

func signalAtOnce(b *box) error {
	for i := 0; i < 20; i++ {
		p, err := b.client.run(b.handle, object{"path": "sleep", "args": []string{"1000"}}, streams{})
		if err != nil {
			return err
		}
		if err := first(p.signal(signalKill), waitFor(p, 137)); err != nil {
			return err
		}
	}
	return nil
}

func tty(b *box) error {
	out, noise := newWatched(), newWatched()
	spec := shell("stty size; read x; stty size; echo got:$x; echo err >&2")
	spec["tty"] = object{"window_size": object{"columns": 100, "rows": 40}}
	p, err := b.client.run(b.handle, spec, streams{stdout: out, stderr: noise})
	if err != nil {
		return err
	}
	out.await("40 100\r\n")
	return first(
		p.resize(132, 50),
		p.send(object{"source": 0, "data": "line\n"}),
		waitFor(p, 0),
		equal("stdout", out.String(), "40 100\r\nline\r\n50 132\r\ngot:line\r\nerr\r\n"),
		equal("stderr", noise.String(), ""))
}

func ttyBurst(b *box) error {
	out := newWatched()
	spec := shell("yes 0123456 | head -n 7000")
	spec["tty"] = object{}
	p, err := b.client.run(b.handle, spec, streams{stdout: out})
	if err != nil {
		return err
	}
	return first(waitFor(p, 0), equal("stdout", out.String(), strings.Repeat("0123456\r\n", 7000)))
}

func userAndEnvironment(b *box) error {
	spec := shell(`echo "$A $B $USER $HOME"; pwd; id -u; id -g`)
	spec["env"] = []string{"A=1", "B=x=y"}
	spec["user"] = "1234:4321"
	spec["dir"] = "/tmp/made/here"
	return b.finish(spec, "", 0, "1 x=y 1234:4321 /\n/tmp/made/here\n1234\n4321\n", "")
}

func attach(b *box) error {
	out, more := newWatched(), newWatched()
	p, err := b.client.run(b.handle, shell("echo one; read x; echo got $x; exit 3"), streams{stdout: out})
	if err != nil {
		return err
	}
	out.await("one\n")
	q, err := b.client.attach(b.handle, p.id, streams{stdout: more, stderr: io.Discard})
	if err != nil {
		return err
	}
	if p.streamID == q.streamID {
		return errors.New("both clients have one stream id")
	}
	return first(
		q.send(object{"source": 0, "data": "ping\n"}),
		waitFor(q, 3), waitFor(p, 3),
		equal("stdout of run", out.String(), "one\ngot ping\n"),
		equal("end of attach's stdout", strings.TrimPrefix(more.String(), "one\n"), "got ping\n"))
}

func attachByMany(b *box) error {
	spec := shell("read x; exit 12")
	spec["id"] = "twelve"
	p, err := b.client.run(b.handle, spec, streams{})
	if err != nil {
		return err
	}
	clients := []*process{p}
	for len(clients) < 7 {
		q, err := b.client.attach(b.handle, "twelve", streams{stdout: io.Discard})
		if err != nil {
			return err
		}
		clients = append(clients, q)
	}
	if err := clients[3].send(object{"source": 0, "data": "go\n"}); err != nil {
		return err
	}
	for _, one := range clients {
		if err := waitFor(one, 12); err != nil {
			return err
		}
	}
	return nil
}

func attachAfterExit(b *box) error {
	p, err := b.client.run(b.handle, shell("echo words; echo more >&2; exit 9"), streams{})
	if err != nil {
		return err
	}
	if err := waitFor(p, 9); err != nil {
		return err
	}
	var texts []string
	for range []int{1, 2} {
		var out, noise bytes.Buffer
		q, err := b.client.attach(b.handle, p.id, streams{stdout: &out, stderr: &noise})
		if err == nil {
			err = waitFor(q, 9)
		}
		if err != nil {
			return err
		}
		texts = append(texts, out.String(), noise.String())
	}
	return equal("outputs of both attaches", texts, []string{"words\n", "more\n", "", ""})
}

func clientThatVanishes(b *box) error {
	out, later := newWatched(), newWatched()
	script := "trap 'echo bye; exit 8' TERM; echo ready; while :; do sleep 0.1; done"
	p, err := b.client.run(b.handle, shell(script), streams{stdout: out})
	if err != nil {
		return err
	}
	out.await("ready\n")
	p.vanish()
	q, err := b.client.attach(b.handle, p.id, streams{stdout: later})
	if err != nil {
		return err
	}
	return first(q.signal(signalTerminate), waitFor(q, 8),
		equal("stdout", strings.TrimPrefix(later.String(), "ready\n"), "bye\n"))
}

// refused fails unless err is the answer that is wanted.
func refused(what string, err error, want apiError) error {
	var got *apiError
	if !errors.As(err, &got) {
		return fmt.Errorf("%s: no error document: %v", what, err)
	}
	return equal(what, *got, want)
}

func typedErrors(b *box) error {
	run := func(spec object) error {
		_, err := b.client.run(b.handle, spec, streams{})
		return err
	}
	const missing = "exec failed: unable to start container process: exec: "
	_, noProcess := b.client.attach(b.handle, "nope", streams{})
	_, noContainer := b.client.run("nobody", shell("true"), streams{})
	unknown := apiError{Status: 404, Type: "ContainerNotFoundError", Message: "unknown handle: nobody",
		Handle: "nobody"}
	spec := object{"id": "mine", "path": "true"}
	p, err := b.client.run(b.handle, spec, streams{})
	if err != nil {
		return err
	}
	return first(
		refused("bare name", run(object{"path": "no-such-program"}), apiError{Status: 500,
			Type:    "ExecutableNotFoundError",
			Message: missing + `"no-such-program": executable file not found in $PATH`}),
		refused("absolute path", run(object{"path": "/bin/nothing"}), apiError{Status: 500,
			Type:    "ExecutableNotFoundError",
			Message: missing + `"/bin/nothing": stat /bin/nothing: no such file or directory`}),
		refused("unknown user", run(object{"path": "true", "user": "nobodyatall"}), apiError{Status: 500,
			Message: "unable to find user nobodyatall: no matching entries in passwd file"}),
		refused("unknown process", noProcess, apiError{Status: 404, Type: "ProcessNotFoundError",
			Message: "unknown process: nope", ProcessID: "nope"}),
		refused("run in an unknown container", noContainer, unknown),
		refused("destroy of an unknown container",
			b.client.call("DELETE", containerPath("nobody"), nil, nil), unknown),
		refused("handle again", b.client.call("POST", "/containers", object{"handle": b.handle}, nil),
			apiError{Status: 500, Message: "Handle '" + b.handle + "' already in use"}),
		waitFor(p, 0),
		refused("process id again", run(spec), apiError{Status: 500,
			Message: "process ID 'mine' already in use"}),
	)
}

// counted keeps the number and the hash of what is written to it.
type counted struct {
	n    int64
	hash hash.Hash
}

func newCounted() *counted {
	return &counted{hash: sha256.New()}
}

func (c *counted) Write(data []byte) (int, error) {
	c.n += int64(len(data))
	return c.hash.Write(data)
}

func (c *counted) isLines(line string, n int64) error {
	want := sha256.New()
	for i := int64(0); i < n; i++ {
		_, _ = io.WriteString(want, line)
	}
	return first(equal("bytes", c.n, n*int64(len(line))),
		equal("sha256", hex.EncodeToString(c.hash.Sum(nil)), hex.EncodeToString(want.Sum(nil))))
}

func largeOutput(b *box) error {
	const lines = 4 * 1024 * 1024
	out := newCounted()
	p, err := b.client.run(b.handle, shell(fmt.Sprint("yes 0123456789abcde | head -n ", lines)),
		streams{stdout: out})
	if err != nil {
		return err
	}
	return first(waitFor(p, 0), out.isLines("0123456789abcde\n", lines))
}

func largeOutputOnBoth(b *box) error {
	const lines = 512 * 1024
	out, noise := newCounted(), newCounted()
	script := fmt.Sprintf("yes 0123456789abcde | head -n %d & yes fedcba987654321 | head -n %d >&2; wait; exit 5",
		lines, lines)
	p, err := b.client.run(b.handle, shell(script), streams{stdout: out, stderr: noise})
	if err != nil {
		return err
	}
	return first(waitFor(p, 5), out.isLines("0123456789abcde\n", lines),
		noise.isLines("fedcba987654321\n", lines))
}

func runsInParallel(b *box) error {
	const n = 20
	results := make(chan error, n)
	for i := 0; i < n; i++ {
		go func(i int) {
			results <- b.finish(shell(fmt.Sprintf("read x; echo $x; exit %d", i)),
				fmt.Sprintf("text %d\n", i), i, fmt.Sprintf("text %d\n", i), "")
		}(i)
	}
	var all error
	for i := 0; i < n; i++ {
		all = first(all, <-results)
	}
	return all
}

func stop(b *box) error {
	out := newWatched()
	script := "trap 'exit 6' TERM; echo ready; while :; do sleep 0.1; done"
	p, err := b.client.run(b.handle, shell(script), streams{stdout: out})
	if err != nil {
		return err
	}
	out.await("ready\n")
	var info object
	err = first(
		b.client.call("PUT", containerPath(b.handle, "stop"), object{"kill": false}, nil),
		waitFor(p, 6),
		b.client.call("GET", containerPath(b.handle, "info"), nil, &info))
	if err != nil {
		return err
	}
	return first(equal("state", info["State"], "stopped"),
		b.finish(shell("echo still"), "", 0, "still\n", ""))
}

func destroyWhileRunning(b *box) error {
	p, err := b.client.run(b.handle, shell("exec sleep 1000"), streams{stdout: io.Discard, stderr: io.Discard})
	if err != nil {
		return err
	}
	b.destroyed = true
	return first(b.client.call("DELETE", containerPath(b.handle), nil, nil), waitFor(p, 137))
}
