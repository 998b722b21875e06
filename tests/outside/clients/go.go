// The scenario of tests/outside with Go's net/http. Usage: go run go.go URL DOOR
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

func send(method, url string, body io.Reader, kind string) (int, string) {
	request, err := http.NewRequest(method, url, body)
	if err != nil {
		panic(err)
	}
	if kind != "" {
		request.Header.Set("Content-Type", kind)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		panic(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		panic(err)
	}
	return answer.StatusCode, string(text)
}

func check(holds bool, what string, status int, text string) {
	if !holds {
		fmt.Fprintln(os.Stderr, what, status, text)
		os.Exit(1)
	}
}

func main() {
	key := os.Args[1] + "/kv/outside/go-" + os.Args[2]
	send("DELETE", key, nil, "")
	status, text := send("PUT", key, strings.NewReader("one"), "text/plain")
	check(status == 201, "a put creates", status, text)
	status, text = send("PUT", key+"?ttl=3s", nil, "")
	check(status == 400, "an empty put without a type is refused", status, text)
	status, text = send("GET", key, nil, "")
	check(text == "one", "and destroys nothing", status, text)
	status, text = send("PUT", key+"?ttl=soon", strings.NewReader(strings.Repeat("x", 300000)), "")
	check(status == 400, "a bad duration is refused", status, text)
	status, text = send("DELETE", key, nil, "")
	check(status == 200, "a delete succeeds", status, text)
	status, text = send("GET", key, nil, "")
	check(status == 404, "what is deleted is absent", status, text)
}
