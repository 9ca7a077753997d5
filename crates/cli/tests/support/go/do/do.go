// Package do is the function of the contract's tests, without the library that calls it.
package do

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// Event says what to do.
type Event struct {
	Do    string      `json:"do"`
	Value interface{} `json:"value"`
	Size  int         `json:"size"`
	Text  string      `json:"text"`
}

// RangeError is what the function fails with.
type RangeError struct{}

func (*RangeError) Error() string { return "on purpose" }

var calls int

func deeper() { panic("in panic") }

// Do does it.
func Do(e Event) (interface{}, error) {
	switch e.Do {
	case "throw":
		return nil, &RangeError{}
	case "panic":
		deeper()
	case "exit":
		fmt.Println("last words")
		os.Exit(3)
	case "hang":
		time.Sleep(time.Minute)
	case "large":
		return strings.Repeat("x", e.Size), nil
	case "count":
		calls++
		return calls, nil
	case "print":
		fmt.Println("to stdout", e.Text)
		fmt.Fprintln(os.Stderr, "to stderr", e.Text)
		return nil, nil
	case "environment":
		all := map[string]string{}
		for _, pair := range os.Environ() {
			key, value, _ := strings.Cut(pair, "=")
			all[key] = value
		}
		return all, nil
	case "files":
		found := map[string]interface{}{}
		found["cwd"], _ = os.Getwd()
		_, err := os.Stat("/var/task/data.txt")
		found["code"] = err == nil
		for _, path := range []string{"/var/user/x", "/tmp/x"} {
			found[path] = os.WriteFile(path, nil, 0o644) == nil
		}
		return found, nil
	}
	return e.Value, nil
}
