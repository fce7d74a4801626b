"""A server of MCP over standard input and output: revision 2025-11-25, one message a line."""
import json, os, sys, threading, time

journal, slow_list = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 0
lock, waiting, stopped = threading.Lock(), {}, set()


def log(event, **more):
    with open(journal, "a") as out:
        out.write(json.dumps({"event": event, **more}) + "\n")


def send(message):
    with lock:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()


def text(value):
    return {"content": [{"type": "text", "text": value}]}


def ask():
    done = waiting["q"] = [threading.Event(), None]
    question = {"message": "Your name?", "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}}}
    send({"id": "q", "method": "elicitation/create", "params": question})
    done[0].wait(20)
    return text(json.dumps(done[1]))


def call(rid, params):
    name, arguments = params["name"], params.get("arguments") or {}
    log("call", name=name, arguments=arguments)
    if name == "echo":
        return text(arguments.get("text", ""))
    if name == "exact":
        raw = '{"big": 9007199254740993, "f": 1.50}'
        return {**text(raw), "structuredContent": {"big": 9007199254740993}, "com.example/unknown": True}
    if name == "env":
        return text(json.dumps(dict(os.environ)))
    if name == "ask":
        return ask()
    if name == "slow":
        for _ in range(200):
            if rid in stopped:
                log("stopped")
                return None
            time.sleep(0.05)
    return text("done")


def answer(message):
    method, params = message["method"], message.get("params") or {}
    if method == "initialize":
        result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "test", "version": "1"}}
    elif method == "tools/list":
        time.sleep(slow_list)
        schema = {"type": "object", "properties": {"zeta": {"type": "string"}, "text": {"type": "string"}}}
        result = {"tools": [{"name": n, "inputSchema": schema, "com.example/x": 1} for n in ("echo", "exact", "env", "ask", "slow")]}
    elif method == "tools/call":
        result = call(message["id"], params)
        if result is None:
            return
    else:
        send({"id": message["id"], "error": {"code": -32601, "message": "Method not found"}})
        return
    send({"id": message["id"], "result": result})


log("start", pid=os.getpid())
print("hello on stderr", file=sys.stderr, flush=True)
print("noise on stdout", flush=True)
for line in sys.stdin:
    message = json.loads(line)
    if "method" not in message:
        waiting[message["id"]][1] = message.get("result") or message.get("error")
        waiting[message["id"]][0].set()
    elif "id" in message:
        threading.Thread(target=answer, args=(message,), daemon=True).start()
    elif message["method"] == "notifications/cancelled":
        stopped.add(message["params"]["requestId"])
