// Package tap writes test results in the TAP format. It stands in for the library of that name, which
// Debian does not package: it has what the validation programs of runtime-tools call, and no more.
package tap

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
)

// T is one stream of results.
type T struct {
	// Writer gets the stream instead of the standard output.
	Writer   io.Writer
	nextTest int
	todo     bool
}

// New begins a stream on the standard output.
func New() *T { return &T{nextTest: 1} }

func (t *T) printf(format string, args ...interface{}) {
	w := t.Writer
	if w == nil {
		w = os.Stdout
	}
	fmt.Fprintf(w, format, args...)
}

// Header says the version, and the plan if the number of tests is known already.
func (t *T) Header(tests int) {
	t.printf("TAP version 13\n")
	if tests > 0 {
		t.printf("1..%d\n", tests)
	}
}

// AutoPlan says the plan when all tests have been run.
func (t *T) AutoPlan() { t.printf("1..%d\n", t.nextTest-1) }

// Ok reports one result.
func (t *T) Ok(ok bool, description string) {
	not := ""
	if !ok {
		not = "not "
	}
	todo := ""
	if t.todo {
		todo = " # TODO"
	}
	t.todo = false
	t.printf("%sok %d - %s%s\n", not, t.nextTest, description, todo)
	t.nextTest++
}

// Pass reports a test that passed.
func (t *T) Pass(description string) { t.Ok(true, description) }

// Fail reports a test that failed.
func (t *T) Fail(description string) { t.Ok(false, description) }

// Skip reports tests that can't be run here.
func (t *T) Skip(count int, description string) {
	for i := 0; i < count; i++ {
		t.printf("ok %d # SKIP %s\n", t.nextTest, description)
		t.nextTest++
	}
}

// Todo marks the next result as one that is known to fail.
func (t *T) Todo() *T {
	t.todo = true
	return t
}

// Diagnostic adds a comment.
func (t *T) Diagnostic(message string) {
	t.printf("# %s\n", strings.ReplaceAll(strings.TrimRight(message, "\n"), "\n", "\n# "))
}

// Diagnosticf adds a formatted comment.
func (t *T) Diagnosticf(format string, args ...interface{}) {
	t.Diagnostic(fmt.Sprintf(format, args...))
}

// YAML adds a block of details; JSON is YAML too.
func (t *T) YAML(message interface{}) error {
	text, err := json.MarshalIndent(message, "  ", "  ")
	if err != nil {
		return err
	}
	t.printf("  ---\n  %s\n  ...\n", text)
	return nil
}

// DeepEqual reports whether two values are the same.
func (t *T) DeepEqual(got, expected interface{}, description string) {
	equal := reflect.DeepEqual(got, expected)
	t.Ok(equal, description)
	if !equal {
		t.Diagnosticf("expected: %#v\ngot: %#v", expected, got)
	}
}
