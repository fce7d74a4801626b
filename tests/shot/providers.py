"""Scripted AI providers on 127.0.0.1: models, streams, rate limits and faults, without a model behind them."""
import json
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Fault(Exception):
    """An error answer: status, message and headers."""

    def __init__(self, status, message, kind, headers=()):
        super().__init__(message)
        self.status, self.kind, self.headers = status, kind, dict(headers)


class Provider:
    """One HTTP server that answers in one dialect. `rules` maps a key to a function that may raise a fault."""

    def __init__(self, dialect, models, rules=(), speed=80, wait=0.4, words=(90, 260), limits=None, port=0):
        self.dialect, self.models, self.rules = dialect, models, dict(rules)
        self.speed, self.wait, self.words, self.limits = speed, wait, words, limits
        self.dice, self.served = random.Random(dialect), {}
        handler = type("Handler", (Handler,), {"provider": self})
        try:
            self.server = Server(("127.0.0.1", port), handler)
        except OSError:
            self.server = Server(("127.0.0.1", 0), handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.1,), daemon=True).start()

    def kill(self):
        """Closes the port; from now on connections are refused."""
        self.server.shutdown()
        self.server.server_close()

    def limit_headers(self, key):
        """How much of a key's limits per minute is left."""
        if not self.limits:
            return {}
        requests, tokens = self.limits
        used = self.served[key] = self.served.get(key, 0) + 1
        left = requests - used % (requests // 2), tokens - (used * 7_919) % (tokens // 2)
        prefix = "anthropic-ratelimit-" if self.dialect == "anthropic" else "x-ratelimit-"
        names = (("requests-limit", "requests-remaining", "tokens-limit", "tokens-remaining") if prefix[0] == "a"
                 else ("limit-requests", "remaining-requests", "limit-tokens", "remaining-tokens"))
        return {prefix + name: str(value) for name, value in zip(names, (requests, left[0], tokens, left[1]))}


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request, client_address):
        """Clients that disconnect are part of the scene."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    provider = None

    def log_message(self, *_):
        pass

    def do_GET(self):
        models = self.provider.models
        if self.path.endswith("/balance"):
            return self.send_json({"is_available": True, "balance_infos": [{"currency": "USD", "total_balance": "7.42"}]})
        if self.provider.dialect == "gemini":
            return self.send_json({"models": [{"name": f"models/{name}", "supportedGenerationMethods": ["generateContent"]} for name in models]})
        self.send_json({"object": "list", "data": [{"id": name, "object": "model", "created": 1_790_000_000} for name in models]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)))
        key = (self.headers.get("x-api-key") or self.headers.get("x-goog-api-key")
               or (self.headers.get("authorization") or "").removeprefix("Bearer "))
        try:
            for name, rule in self.provider.rules.items():
                if key.startswith(name):
                    rule(body)
        except Fault as fault:
            time.sleep(0.15)
            return self.send_json({"error": {"message": str(fault), "type": fault.kind, "code": fault.kind}}, fault.status, fault.headers)
        time.sleep(self.provider.wait * self.provider.dice.uniform(0.6, 1.9))
        answer = Answer(body, self.path, self.provider)
        if not answer.is_stream:
            time.sleep(answer.words / self.provider.speed)
            return self.send_json(answer.whole(), 200, self.provider.limit_headers(key))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        for name, value in self.provider.limit_headers(key).items():
            self.send_header(name, value)
        self.end_headers()
        for event in answer.events():
            self.wfile.write(event.encode())
            self.wfile.flush()
        self.close_connection = True

    def send_json(self, value, status=200, headers=()):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        for name, text in dict(headers).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)


class Answer:
    """The answer to one request. Its length is random; its input grows with the conversation, most of it cached from the second turn on."""

    def __init__(self, body, path, provider):
        self.provider, dice = provider, provider.dice
        self.model = body.get("model") or path.rsplit("/", 1)[-1].split(":")[0]
        self.is_stream = body.get("stream", "stream" in path)
        turns = len(body.get("messages") or body.get("contents") or [])
        self.input = 2_100 + turns * dice.randint(6_800, 9_200)
        self.cached = self.input * dice.randint(80, 93) // 100 if turns > 2 else 0
        self.words = dice.randint(*provider.words)
        self.thinking = self.words // 2 if "deepseek" in self.model else 0
        self.output = self.words + self.thinking
        asked = json.dumps(body)
        question = max(range(len(QUESTIONS)), key=lambda at: asked.rfind(QUESTIONS[at]))
        self.text = "\n\n".join(TEXTS[question:] + TEXTS[:question])

    def pieces(self, count, text):
        words = text.split(" ")
        for at in range(count):
            time.sleep(1 / self.provider.speed)
            yield words[at % len(words)] + " "

    def openai_usage(self):
        return {"prompt_tokens": self.input, "completion_tokens": self.output, "total_tokens": self.input + self.output,
                "prompt_tokens_details": {"cached_tokens": self.cached}, "completion_tokens_details": {"reasoning_tokens": self.thinking}}

    def anthropic_usage(self):
        fresh = max(self.input - self.cached, 40)
        return {"input_tokens": 40, "cache_creation_input_tokens": fresh - 40, "cache_read_input_tokens": self.cached}

    def whole(self):
        text = " ".join(self.text.split(" ")[: self.words])
        if self.provider.dialect == "anthropic":
            return {"id": "msg_01", "type": "message", "role": "assistant", "model": self.model, "content": [{"type": "text", "text": text}],
                    "stop_reason": "end_turn", "stop_sequence": None, "usage": {**self.anthropic_usage(), "output_tokens": self.output}}
        return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1_790_000_000, "model": self.model, "usage": self.openai_usage(),
                "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}

    def events(self):
        return {"anthropic": self.anthropic_events, "gemini": self.gemini_events}.get(self.provider.dialect, self.openai_events)()

    def openai_events(self):
        def chunk(delta, finish=None, **more):
            choices = [{"index": 0, "delta": delta, "finish_reason": finish}] if delta is not None else []
            value = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_790_000_000, "model": self.model, "choices": choices, **more}
            return f"data: {json.dumps(value)}\n\n"

        yield chunk({"role": "assistant", "content": ""})
        for piece in self.pieces(self.thinking, THOUGHT):
            yield chunk({"reasoning_content": piece})
        for piece in self.pieces(self.words, self.text):
            yield chunk({"content": piece})
        yield chunk({}, "stop")
        yield chunk(None, usage=self.openai_usage())
        yield "data: [DONE]\n\n"

    def anthropic_events(self):
        def event(kind, **fields):
            return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n"

        yield event("message_start", message={"id": "msg_01", "type": "message", "role": "assistant", "model": self.model, "content": [],
                                              "stop_reason": None, "stop_sequence": None, "usage": {**self.anthropic_usage(), "output_tokens": 1}})
        yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        for piece in self.pieces(self.words, self.text):
            yield event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})
        yield event("content_block_stop", index=0)
        yield event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": self.output})
        yield event("message_stop")

    def gemini_events(self):
        def chunk(text, **more):
            value = {"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, "index": 0, **more}], "modelVersion": self.model,
                     "usageMetadata": {"promptTokenCount": self.input, "candidatesTokenCount": self.output, "totalTokenCount": self.input + self.output,
                                       "cachedContentTokenCount": self.cached}}
            return f"data: {json.dumps(value)}\r\n\r\n"

        for piece in self.pieces(self.words - 1, self.text):
            yield chunk(piece)
        yield chunk("Done.", finishReason="STOP")


THOUGHT = "The test fails only under load, so the order of two reads matters. The clock is read before the lock is taken; between them the deadline may pass."
# Questions, and their answers at the same places.
QUESTIONS = [
    "The test `relay::deadline` fails about once in a hundred runs. Find out why, and fix the cause rather than the test.",
    "Make `sanitize` cheaper: it shows up in the profile of the dashboard with 4 %.",
    "Where do we open connections without a timeout?",
    "Write a commit message for the staged changes.",
    "Explain what happens between the first byte of a request and the choice of an upstream.",
    "Rename `Passage` to `Passthrough` everywhere, and tell me which docs mention it.",
]
TEXTS = [
    "I'll look at the failing test first. It reads the clock twice: once for the deadline and once for the comparison, "
    "and under load the second read is later than the deadline. The fix is to read it once:\n\n"
    "    let now = clock.now();\n    if now >= deadline { return Err(Timeout); }\n\n"
    "With that change the test passed 500 times in a row.",
    "The function allocates a string for every row. It can borrow instead: take `&str` and return `Cow<str>`, which allocates "
    "only for the rows that need cleaning. The benchmark shows 3.1 ms before and 0.9 ms after.",
    "Three places call `connect` without a timeout: `pool.rs`, `probe.rs` and `balance.rs`. I would add the timeout to the "
    "connector, so that no caller can forget it, and keep the existing one of `probe.rs` because it is shorter.",
    "The commit message says what changed but not why. Suggestion: \"Read the clock once per deadline\", with a body that names "
    "the flaky test and the two reads.",
    "Between the first byte and the choice of an upstream, four things happen: the body is read within its limit, the model name is "
    "resolved, the project's limits are checked, and the candidates are ranked. Only the last step takes the router's lock.",
    "Two documents mention the old name: `docs/routing.md` in the section about streams, and the comment at the top of `stream.rs`. "
    "I changed both, and the test that lists public types.",
    "One more thing: the same pattern is in `queue.rs`, where it does no harm today because the queue is never longer than its limit. "
    "I left it alone, and wrote a test that fails if that changes.",
]
