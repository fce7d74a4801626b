#!/usr/bin/env python3
"""The official SDKs against every upstream dialect: one proxy plays the provider (its demo), another stands before it and
has one upstream for each dialect. Prints a table of SDK by upstream; ends with 1 where anything is wrong.

    tests/sdk/pairs.py BINARY            needs the packages of tests/sdk/requirements.txt
    tests/sdk/pairs.py BINARY --write    writes the table into docs/translation.md as well
    tests/sdk/pairs.py BINARY --check    also wrong where the table there is another
"""
import base64
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import anthropic
import ollama
import openai
from google import genai

DIALECTS = ["openai", "responses", "anthropic", "gemini", "ollama"]
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}
SYSTEM, QUESTION = "You are terse.", "What is the weather in Łódź? 🎉"
PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")


class Proxy:
    """A running aiproxy in a folder of its own."""

    def __init__(self, binary, config, *args):
        self.home = tempfile.TemporaryDirectory()
        path = os.path.join(self.home.name, "config.toml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(config)
        env = {"PATH": os.environ["PATH"], "HOME": self.home.name, "NO_COLOR": "1", "UPSTREAM_KEY": "sk-provider", "CLIENT_KEY": "aip-client"}
        self.data = os.path.join(self.home.name, "data")
        self.process = subprocess.Popen(
            [binary, "serve", "--listen", "127.0.0.1:0", "--config", path, "--data-dir", self.data, *args],
            env=env, stdout=subprocess.DEVNULL, stderr=open(os.path.join(self.home.name, "log"), "w", encoding="utf-8"))
        for _ in range(200):
            try:
                with open(os.path.join(self.data, "run", "proxy.json"), encoding="utf-8") as file:
                    self.url = "http://" + json.load(file)["listen"][0]
                urllib.request.urlopen(self.url + "/health").read()
                return
            except (OSError, ValueError):
                time.sleep(0.05)
        sys.exit("aiproxy did not start:\n" + open(os.path.join(self.home.name, "log"), encoding="utf-8").read())

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.home.cleanup()


PROJECT = '[discover]\nenv = false\nlocal = false\n[[project]]\nname = "default"\nkey = "env:CLIENT_KEY"\n'


def front(provider):
    """A config with one upstream per dialect, all at the same provider."""
    base = {"openai": "/v1", "responses": "/v1", "anthropic": "/v1", "gemini": "/v1beta", "ollama": ""}
    rows = [f'[[upstream]]\nname = "{d}"\nbase_url = "{provider}{base[d]}"\ndialect = "{d}"\nmodels = ["*"]\nkeys = ["env:UPSTREAM_KEY"]\n' for d in DIALECTS]
    return PROJECT + "".join(rows)


def equal(got, want, what):
    if got != want:
        raise AssertionError(f"{what}: {got!r} instead of {want!r}")


def true(value, what):
    if not value:
        raise AssertionError(what)


class Openai:
    name = "openai (chat)"

    def __init__(self, url):
        self.client = openai.OpenAI(base_url=url + "/v1", api_key="aip-client", max_retries=0)
        self.tools = [{"type": "function", "function": {"name": "weather", "description": "Tells the weather", "parameters": WEATHER}}]

    def chat(self, model):
        said = self.client.chat.completions.create(model=model, messages=[{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}])
        true(said.usage.prompt_tokens > 0 and said.usage.completion_tokens > 0, "usage")
        return said.choices[0].message.content, said.choices[0].finish_reason == "stop"

    def stream(self, model):
        text, end, usage = "", None, None
        for chunk in self.client.chat.completions.create(model=model, messages=[{"role": "user", "content": QUESTION}], stream=True, stream_options={"include_usage": True}):
            usage = chunk.usage or usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
                end = choice.finish_reason or end
        true(usage and usage.completion_tokens > 0, "usage")
        return text, end == "stop"

    def loop(self, model, stream):
        messages = [{"role": "user", "content": QUESTION}]
        if stream:
            with self.client.chat.completions.stream(model=model, messages=messages, tools=self.tools) as events:
                for _ in events:
                    pass
                said = events.get_final_completion().choices[0]
        else:
            said = self.client.chat.completions.create(model=model, messages=messages, tools=self.tools).choices[0]
        equal(said.finish_reason, "tool_calls", "finish")
        call = said.message.tool_calls[0]
        thought = getattr(said.message, "reasoning_content", None)
        messages += [{"role": "assistant", "content": said.message.content, **({"reasoning_content": thought} if thought else {}), "tool_calls": [{"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": call.function.arguments}}]},
                     {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
        last = self.client.chat.completions.create(model=model, messages=messages, tools=self.tools)
        return call.function.name, json.loads(call.function.arguments), last.choices[0].message.content

    def image(self, model):
        parts = [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(PIXEL).decode()}}]
        return self.client.chat.completions.create(model=model, messages=[{"role": "user", "content": parts}]).choices[0].message.content

    def error(self, model):
        try:
            self.client.chat.completions.create(model=model, messages=[{"role": "user", "content": "fail 429"}])
        except openai.RateLimitError:
            return True


class Responses(Openai):
    name = "openai (responses)"

    def __init__(self, url):
        super().__init__(url)
        self.tools = [{"type": "function", "name": "weather", "description": "Tells the weather", "parameters": WEATHER, "strict": False}]

    def chat(self, model):
        said = self.client.responses.create(model=model, instructions=SYSTEM, input=QUESTION)
        true(said.usage.input_tokens > 0 and said.usage.output_tokens > 0, "usage")
        return said.output_text, said.status == "completed"

    def stream(self, model):
        text, end = "", None
        for event in self.client.responses.create(model=model, input=QUESTION, stream=True):
            if event.type == "response.output_text.delta":
                text += event.delta
            end = event
        equal(end.type, "response.completed", "last event")
        equal(end.response.output_text, text, "deltas")
        return text, True

    def loop(self, model, stream):
        if stream:
            with self.client.responses.stream(model=model, input=QUESTION, tools=self.tools) as events:
                said = events.get_final_response()
        else:
            said = self.client.responses.create(model=model, input=QUESTION, tools=self.tools)
        call = next(item for item in said.output if item.type == "function_call")
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
        if model.endswith("think"):
            items = [item.model_dump(exclude_none=True) for item in said.output]
            last = self.client.responses.create(model=model, tools=self.tools, input=[{"role": "user", "content": QUESTION}, *items, result])
        else:
            last = self.client.responses.create(model=model, previous_response_id=said.id, tools=self.tools, input=[result])
        return call.name, json.loads(call.arguments), last.output_text

    def image(self, model):
        parts = [{"type": "input_text", "text": "Look"}, {"type": "input_image", "image_url": "data:image/png;base64," + base64.b64encode(PIXEL).decode(), "detail": "auto"}]
        return self.client.responses.create(model=model, input=[{"role": "user", "content": parts}]).output_text

    def error(self, model):
        try:
            self.client.responses.create(model=model, input="fail 429")
        except openai.RateLimitError:
            return True


class Anthropic:
    name = "anthropic"

    def __init__(self, url):
        self.client = anthropic.Anthropic(base_url=url, api_key="aip-client", max_retries=0)
        self.tools = [{"name": "weather", "description": "Tells the weather", "input_schema": WEATHER}]

    def ask(self, model, messages, **more):
        return self.client.messages.create(model=model, max_tokens=500, messages=messages, **more)

    def chat(self, model):
        said = self.ask(model, [{"role": "user", "content": QUESTION}], system=SYSTEM)
        true(said.usage.input_tokens > 0 and said.usage.output_tokens > 0, "usage")
        return said.content[0].text, said.stop_reason == "end_turn"

    def stream(self, model):
        with self.client.messages.stream(model=model, max_tokens=500, messages=[{"role": "user", "content": QUESTION}]) as events:
            text = "".join(events.text_stream)
            last = events.get_final_message()
        true(last.usage.output_tokens > 0, "usage")
        return text, last.stop_reason == "end_turn"

    def loop(self, model, stream):
        messages = [{"role": "user", "content": QUESTION}]
        if stream:
            with self.client.messages.stream(model=model, max_tokens=500, messages=messages, tools=self.tools) as events:
                said = events.get_final_message()
        else:
            said = self.ask(model, messages, tools=self.tools)
        equal(said.stop_reason, "tool_use", "stop_reason")
        call = next(block for block in said.content if block.type == "tool_use")
        messages += [{"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in said.content]},
                     {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}]}]
        last = self.ask(model, messages, tools=self.tools)
        return call.name, call.input, "".join(block.text for block in last.content if block.type == "text")

    def image(self, model):
        source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PIXEL).decode()}
        return self.ask(model, [{"role": "user", "content": [{"type": "text", "text": "Look"}, {"type": "image", "source": source}]}]).content[0].text

    def error(self, model):
        try:
            self.ask(model, [{"role": "user", "content": "fail 429"}])
        except anthropic.RateLimitError:
            return True


class Gemini:
    name = "google-genai"

    def __init__(self, url):
        self.client = genai.Client(api_key="aip-client", vertexai=False, http_options={"base_url": url, "retry_options": {"attempts": 1}})
        declared = genai.types.FunctionDeclaration(name="weather", description="Tells the weather", parameters_json_schema=WEATHER)
        off = genai.types.AutomaticFunctionCallingConfig(disable=True)
        self.config = genai.types.GenerateContentConfig(tools=[genai.types.Tool(function_declarations=[declared])], automatic_function_calling=off)

    def chat(self, model):
        said = self.client.models.generate_content(model=model, contents=QUESTION, config={"system_instruction": SYSTEM})
        true(said.usage_metadata.prompt_token_count > 0 and said.usage_metadata.candidates_token_count > 0, "usage")
        return said.text, said.candidates[0].finish_reason.value == "STOP"

    def stream(self, model):
        text, end = "", None
        for chunk in self.client.models.generate_content_stream(model=model, contents=QUESTION):
            text += chunk.text or ""
            end = chunk.candidates and chunk.candidates[0].finish_reason or end
        return text, end.value == "STOP"

    def loop(self, model, stream):
        contents = [genai.types.Content(role="user", parts=[genai.types.Part(text=QUESTION)])]
        if stream:
            chunks = list(self.client.models.generate_content_stream(model=model, contents=contents, config=self.config))
            parts = [part for chunk in chunks for part in (chunk.candidates[0].content and chunk.candidates[0].content.parts or [])]
        else:
            parts = self.client.models.generate_content(model=model, contents=contents, config=self.config).candidates[0].content.parts
        call = next(part.function_call for part in parts if part.function_call)
        contents += [genai.types.Content(role="model", parts=[part for part in parts if part.function_call]),
                     genai.types.Content(role="user", parts=[genai.types.Part(function_response=genai.types.FunctionResponse(id=call.id, name=call.name, response={"output": "sunny"}))])]
        return call.name, dict(call.args), self.client.models.generate_content(model=model, contents=contents, config=self.config).text

    def image(self, model):
        return self.client.models.generate_content(model=model, contents=["Look", genai.types.Part.from_bytes(data=PIXEL, mime_type="image/png")]).text

    def error(self, model):
        try:
            self.client.models.generate_content(model=model, contents="fail 429")
        except genai.errors.ClientError as e:
            return e.code == 429


class Ollama:
    name = "ollama"

    def __init__(self, url):
        self.client = ollama.Client(host=url, headers={"authorization": "Bearer aip-client"})
        self.tools = [{"type": "function", "function": {"name": "weather", "description": "Tells the weather", "parameters": WEATHER}}]

    def chat(self, model):
        said = self.client.chat(model=model, messages=[{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}])
        true(said.prompt_eval_count > 0 and said.eval_count > 0, "usage")
        return said.message.content, said.done_reason == "stop"

    def stream(self, model):
        chunks = list(self.client.chat(model=model, messages=[{"role": "user", "content": QUESTION}], stream=True))
        return "".join(chunk.message.content or "" for chunk in chunks), chunks[-1].done

    def loop(self, model, stream):
        messages = [{"role": "user", "content": QUESTION}]
        if stream:
            said = [chunk.message for chunk in self.client.chat(model=model, messages=messages, tools=self.tools, stream=True)]
        else:
            said = [self.client.chat(model=model, messages=messages, tools=self.tools).message]
        call = next(call for message in said for call in message.tool_calls or []).function
        thought = "".join(message.thinking or "" for message in said)
        messages += [{"role": "assistant", "content": "", "thinking": thought, "tool_calls": [{"function": {"name": call.name, "arguments": dict(call.arguments)}}]},
                     {"role": "tool", "tool_name": call.name, "content": "sunny"}]
        return call.name, dict(call.arguments), self.client.chat(model=model, messages=messages, tools=self.tools).message.content

    def image(self, model):
        return self.client.chat(model=model, messages=[{"role": "user", "content": "Look", "images": [PIXEL]}]).message.content

    def error(self, model):
        try:
            self.client.chat(model=model, messages=[{"role": "user", "content": "fail 429"}])
        except ollama.ResponseError as e:
            return e.status_code == 429


def judge(client, upstream):
    """What is wrong between one SDK and one upstream."""
    wrong = []

    def case(name, run):
        try:
            run()
        except Exception as e:  # noqa: BLE001 (whatever an SDK raises is the finding)
            wrong.append(f"{name}: {type(e).__name__}: {str(e)[:300]}")

    def talk(how):
        text, ended = how(upstream + "/echo")
        true(QUESTION in text, f"text {text!r}")
        true(ended, "finish")

    def loop(stream, model="tools"):
        # `think` refuses a tool's answer that comes without its own thought and the proof of it.
        name, arguments, last = client.loop(f"{upstream}/{model}", stream)
        equal(name, "weather", "tool")
        true(isinstance(arguments, dict) and "city" in arguments, f"arguments {arguments!r}")
        true("sunny" in last, f"last answer {last!r}")

    case("chat", lambda: talk(client.chat))
    case("stream", lambda: talk(client.stream))
    case("tools", lambda: loop(False))
    case("tools, streamed", lambda: loop(True))
    case("thinking", lambda: loop(False, "think"))
    case("thinking, streamed", lambda: loop(True, "think"))
    case("image", lambda: true("Look" in client.image(upstream + "/echo"), "text"))
    case("error", lambda: true(client.error(upstream + "/flaky"), "no exception of its class"))
    return wrong


DOCS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "docs", "translation.md")
BEGIN, END = "<!-- pairs: written by tests/sdk/pairs.py -->\n", "<!-- end of pairs -->"


def table(clients, found):
    """The pairs in Markdown."""
    lines = ["| SDK | " + " | ".join(f"`{d}`" for d in DIALECTS) + " |", "| --- |" + " --- |" * len(DIALECTS)]
    for client in clients:
        cells = ["yes" if not found[client.name, d].result() else "no" for d in DIALECTS]
        lines.append(f"| {client.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def documented(pairs, write):
    """Whether the docs hold this table, once it is written if so wished."""
    with open(DOCS, encoding="utf-8") as file:
        text = file.read()
    before, rest = text.split(BEGIN)
    wanted = before + BEGIN + "\n" + pairs + "\n" + END + rest.split(END)[1]
    if write:
        with open(DOCS, "w", encoding="utf-8") as file:
            file.write(wanted)
    return write or text == wanted


def main():
    binary, options = sys.argv[1], sys.argv[2:]
    provider = Proxy(binary, "[server]\nauth = false\n" + PROJECT, "--demo")
    proxy = Proxy(binary, front(provider.url) + '[retry]\nmax_attempts = 1\nqueue_for = "0s"\n[cooldown]\nrate_limited = "1ms"\nmax_hint = "1ms"\n')
    try:
        clients = [kind(proxy.url) for kind in (Openai, Responses, Anthropic, Gemini, Ollama)]
        with ThreadPoolExecutor(4) as pool:
            found = {(client.name, upstream): pool.submit(judge, client, upstream) for client in clients for upstream in DIALECTS}
        print(f"{'':20}" + "".join(f"{d:11}" for d in DIALECTS))
        for client in clients:
            print(f"{client.name:20}" + "".join(f"{'yes' if not found[client.name, d].result() else 'NO':11}" for d in DIALECTS))
        wrong = [f"{name} at {upstream}: {each}" for (name, upstream), result in found.items() for each in result.result()]
        if options and not documented(table(clients, found), "--write" in options):
            wrong.append("the table in docs/translation.md is another; --write writes it")
        print("\n".join(wrong))
        return 1 if wrong else 0
    finally:
        proxy.stop()
        provider.stop()


sys.exit(main())
