// The scenario of tests/outside with java.net.http. Usage: java Java.java URL DOOR
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;

public class Java {
    static final HttpClient CLIENT = HttpClient.newHttpClient();

    static HttpResponse<String> send(String method, String uri, String body, String... headers)
            throws Exception {
        var content = body == null ? BodyPublishers.noBody() : BodyPublishers.ofString(body);
        var request = HttpRequest.newBuilder(URI.create(uri)).method(method, content);
        if (headers.length > 0) {
            request.headers(headers);
        }
        return CLIENT.send(request.build(), BodyHandlers.ofString());
    }

    static void check(boolean holds, String what, HttpResponse<String> answer) {
        if (!holds) {
            System.err.println(what + ": " + answer.statusCode() + " " + answer.headers().map()
                    + " " + answer.body());
            System.exit(1);
        }
    }

    static String uuid(HttpResponse<String> answer) {
        return answer.body().replaceAll("(?s).*?\"uuid\":\"([^\"]+)\".*", "$1");
    }

    public static void main(String[] arguments) throws Exception {
        var key = arguments[0] + "/kv/outside/java-" + arguments[1];
        send("DELETE", key, null);
        // the client asks for HTTP/2 by `Upgrade: h2c` on its first request
        var answer = send("PUT", key, "{\"a\": 1}\n", "Content-Type", "application/json");
        check(answer.statusCode() == 201, "a put creates", answer);
        var first = uuid(answer);
        answer = send("GET", key, null);
        check(answer.body().equals("{\"a\": 1}\n"), "a value comes back as it was put", answer);
        answer = send("PUT", key, "two", "Content-Type", "text/plain", "If-Match",
                '"' + first + '"');
        check(answer.statusCode() == 200, "a swap on the current version succeeds", answer);
        answer = send("PUT", key, "three", "Content-Type", "text/plain", "If-Match",
                '"' + first + '"');
        check(answer.statusCode() == 412, "a swap on an old version is refused", answer);
        answer = send("PUT", key + "?ttl=3s", null);
        check(answer.statusCode() == 400, "an empty put without a type is refused", answer);
        answer = send("GET", key, null);
        check(answer.body().equals("two"), "and destroys nothing", answer);
        answer = send("PUT", key, "", "Content-Type", "text/plain");
        check(answer.statusCode() == 200, "an empty value with a type is stored", answer);
        answer = send("PUT", key + "?ttl=soon", "x".repeat(300_000));
        check(answer.statusCode() == 400, "a bad duration is refused", answer);
        answer = send("DELETE", key, null);
        check(answer.statusCode() == 200, "a delete succeeds", answer);
        answer = send("GET", key, null);
        check(answer.statusCode() == 404, "what is deleted is absent", answer);
    }
}
