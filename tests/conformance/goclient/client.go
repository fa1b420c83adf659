package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"
)

const dialTimeout = 30 * time.Second

// object is any JSON object.
type object map[string]interface{}

// apiError is an answer that is not a success: its status and the error document.
type apiError struct {
	Status    int `json:"-"`
	Type      string
	Message   string
	Handle    string
	ProcessID string
	Binary    string
}

func (e *apiError) Error() string {
	return fmt.Sprintf("status %d, type %q: %s", e.Status, e.Type, e.Message)
}

type client struct {
	address string
	plain   *http.Client
}

func newClient(address string) *client {
	c := &client{address: address}
	c.plain = &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		Dial:              func(string, string) (net.Conn, error) { return c.dial() },
	}}
	return c
}

func (c *client) dial() (net.Conn, error) {
	if strings.HasPrefix(c.address, "/") {
		return net.DialTimeout("unix", c.address, dialTimeout)
	}
	return net.DialTimeout("tcp", c.address, dialTimeout)
}

// request builds a request with in as its JSON document; nil is none.
func request(method, path string, in interface{}) (*http.Request, error) {
	body := new(bytes.Buffer)
	if in != nil {
		if err := json.NewEncoder(body).Encode(in); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequest(method, "http://api"+path, body)
	if err == nil && in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, err
}

// check turns an answer that is not a success into an apiError.
func check(resp *http.Response) error {
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return nil
	}
	failure := &apiError{Status: resp.StatusCode}
	if err := json.NewDecoder(resp.Body).Decode(failure); err != nil {
		return fmt.Errorf("bad response: %s: %v", resp.Status, err)
	}
	return failure
}

// call makes a plain call, on a connection of its own; the answer goes to out.
func (c *client) call(method, path string, in, out interface{}) error {
	req, err := request(method, path, in)
	if err != nil {
		return err
	}
	resp, err := c.plain.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := check(resp); err != nil {
		return err
	}
	if out == nil {
		out = new(object)
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("%s %s: %v", method, path, err)
	}
	rest, err := io.ReadAll(resp.Body)
	if err == nil && strings.TrimSpace(string(rest)) != "" {
		err = fmt.Errorf("%s %s: more than one document: %q", method, path, rest)
	}
	return err
}

// hijack makes a call whose connection is raw once the head of the answer has come.
func (c *client) hijack(method, path string, in interface{}) (net.Conn, *bufio.Reader, error) {
	req, err := request(method, path, in)
	if err != nil {
		return nil, nil, err
	}
	conn, err := c.dial()
	if err != nil {
		return nil, nil, err
	}
	// Deprecated in Go, and what every Garden client has.
	over := httputil.NewClientConn(conn, nil) //nolint:staticcheck
	resp, err := over.Do(req)
	if err == nil {
		err = check(resp)
	}
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	raw, reader := over.Hijack()
	return raw, reader, nil
}

func containerPath(handle string, parts ...string) string {
	path := "/containers/" + url.PathEscape(handle)
	for _, part := range parts {
		path += "/" + url.PathEscape(part)
	}
	return path
}
