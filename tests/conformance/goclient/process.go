package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

const (
	signalTerminate = 0
	signalKill      = 1
)

// streams says which streams of a process a client wants; nil is none.
type streams struct {
	stdin          io.Reader
	stdout, stderr io.Writer
}

// process is a client of a process: a control connection and up to two for output.
type process struct {
	id, streamID string

	client  *client
	handle  string
	control net.Conn
	sending sync.Mutex
	outputs sync.WaitGroup
	failure chan error // of an output or of stdin
	ended   chan struct{}
	status  int
	err     error
}

type report struct {
	ProcessID  string `json:"process_id"`
	StreamID   string `json:"stream_id"`
	ExitStatus *int   `json:"exit_status"`
	Error      string `json:"error"`
}

func (c *client) run(handle string, spec object, want streams) (*process, error) {
	return c.open("POST", containerPath(handle, "processes"), handle, spec, want)
}

func (c *client) attach(handle, id string, want streams) (*process, error) {
	return c.open("GET", containerPath(handle, "processes", id), handle, nil, want)
}

func (c *client) open(method, path, handle string, spec object, want streams) (*process, error) {
	var in interface{}
	if spec != nil {
		in = spec
	}
	control, reader, err := c.hijack(method, path, in)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(reader)
	var first report
	if err := decoder.Decode(&first); err != nil {
		control.Close()
		return nil, fmt.Errorf("decode failed: %v", err)
	}
	if first.ProcessID == "" || first.StreamID == "" {
		control.Close()
		return nil, fmt.Errorf("the first line has no ids: %+v", first)
	}
	p := &process{id: first.ProcessID, streamID: first.StreamID, client: c, handle: handle,
		control: control, failure: make(chan error, 3), ended: make(chan struct{})}
	p.output("stdout", want.stdout)
	p.output("stderr", want.stderr)
	if want.stdin != nil {
		go p.input(want.stdin)
	}
	go p.follow(decoder)
	return p, nil
}

// output opens the connection of one output stream and copies it to a writer until its end.
func (p *process) output(name string, to io.Writer) {
	if to == nil {
		return
	}
	conn, reader, err := p.client.hijack("GET",
		containerPath(p.handle, "processes", p.id, "attaches", p.streamID, name), nil)
	if err != nil {
		p.failure <- fmt.Errorf("%s: failed to hijack stream: %v", name, err)
		return
	}
	p.outputs.Add(1)
	go func(conn net.Conn, reader *bufio.Reader) {
		defer p.outputs.Done()
		defer conn.Close()
		if _, err := io.Copy(to, reader); err != nil {
			p.failure <- fmt.Errorf("%s: %v", name, err)
		}
	}(conn, reader)
}

// input sends what a reader has, and its end.
func (p *process) input(from io.Reader) {
	chunk := make([]byte, 32*1024)
	for {
		n, err := from.Read(chunk)
		if n > 0 && p.send(object{"source": 0, "data": string(chunk[:n])}) != nil {
			return // the process has ended
		}
		if err != nil {
			_ = p.send(object{"source": 0})
			return
		}
	}
}

// follow reads the control connection to its end.
func (p *process) follow(decoder *json.Decoder) {
	defer close(p.ended)
	var last report
	for last.ExitStatus == nil && last.Error == "" {
		last = report{}
		if err := decoder.Decode(&last); err != nil {
			p.err = fmt.Errorf("decode failed: %v", err)
			p.control.Close()
			return
		}
	}
	p.outputs.Wait()
	if last.Error != "" {
		p.err = errors.New("process error: " + last.Error)
	} else {
		p.status = *last.ExitStatus
	}
	if err := decoder.Decode(new(object)); p.err == nil && err != io.EOF {
		p.err = fmt.Errorf("the control connection did not end after the exit: %v", err)
	}
	p.control.Close()
}

func (p *process) send(message object) error {
	p.sending.Lock()
	defer p.sending.Unlock()
	message["process_id"] = p.id
	return json.NewEncoder(p.control).Encode(message)
}

func (p *process) signal(number int) error {
	return p.send(object{"signal": number})
}

func (p *process) resize(columns, rows int) error {
	return p.send(object{"tty": object{"window_size": object{"columns": columns, "rows": rows}}})
}

// wait returns the exit status once all connections have ended.
func (p *process) wait() (int, error) {
	<-p.ended
	select {
	case err := <-p.failure:
		return -1, err
	default:
		return p.status, p.err
	}
}

// vanish closes the control connection, as a client does that is killed.
func (p *process) vanish() {
	p.control.Close()
	<-p.ended
}
