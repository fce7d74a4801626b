"""The scene of the pictures: six upstreams, five clients, a month of past usage, and everything that can go wrong in a morning."""
import http.client
import json
import random
import sqlite3
import threading
import time
import urllib.error
import urllib.request

from providers import QUESTIONS, Fault, Provider

# Environment variables with the keys of providers and projects; none of them is real.
KEYS = {"ANTHROPIC_WORK": "demo-anthropic-work-e01b", "ANTHROPIC_HOME": "demo-anthropic-home-77aa", "OPENAI_OLD": "demo-openai-old-4d1c",
        "OPENAI_WORK": "demo-openai-work-9f2c", "OPENAI_HOME": "demo-openai-home-11d0", "GEMINI_KEY": "demo-gemini-30be",
        "DEEPSEEK_KEY": "demo-deepseek-5c3e", "GROQ_KEY": "demo-groq-b7f2",
        "IDE_KEY": "demo-client-ide-0001", "AGENTS_KEY": "demo-client-agents-0002", "BATCH_KEY": "demo-client-batch-0003"}

CONFIG = """\
[server]
listen = "{listen}"

[discover]
env = false
local = false

[[upstream]]
name = "anthropic"
preset = "anthropic"
base_url = "http://127.0.0.1:{anthropic}/v1"
keys = [{{ ref = "env:ANTHROPIC_WORK", label = "work" }}, {{ ref = "env:ANTHROPIC_HOME", label = "home" }}]

[[upstream]]
name = "openai"
preset = "openai"
base_url = "http://127.0.0.1:{openai}/v1"
keys = [
    {{ ref = "env:OPENAI_OLD", label = "old" }},
    {{ ref = "env:OPENAI_WORK", label = "work" }},
    {{ ref = "env:OPENAI_HOME", label = "home" }},
]

[[upstream]]
name = "gemini"
preset = "gemini"
base_url = "http://127.0.0.1:{gemini}/v1beta"
dialect = "gemini"
keys = [{{ ref = "env:GEMINI_KEY", label = "main" }}]

[[upstream]]
name = "deepseek"
preset = "deepseek"
base_url = "http://127.0.0.1:{deepseek}/v1"
keys = [{{ ref = "env:DEEPSEEK_KEY", label = "main" }}]

[[upstream]]
name = "groq"
preset = "groq"
base_url = "http://127.0.0.1:{groq}/openai/v1"
priority = 20
keys = [{{ ref = "env:GROQ_KEY", label = "free" }}]

[[upstream]]
name = "lmstudio"
base_url = "http://127.0.0.1:{lmstudio}/v1"
dialect = "openai"

[[model]]
name = "smart"
targets = ["anthropic:claude-sonnet-5-5", {{ upstream = "openai", model = "gpt-6.1-terra", priority = 20 }}]

[[model]]
name = "fast"
targets = ["lmstudio:qwen3-coder-30b", {{ upstream = "groq", model = "llama-3.3-70b-versatile", priority = 20 }}]

[aliases]
"gpt-4o*" = "gpt-6-luna"

[[project]]
name = "ide"
key = "env:IDE_KEY"
budget = {{ usd = {ide_budget}, per = "day" }}

[[project]]
name = "agents"
key = "env:AGENTS_KEY"
budget = {{ usd = {agents_budget}, per = "week" }}

[[project]]
name = "batch"
key = "env:BATCH_KEY"

[budget]
usd = {budget}
per = "month"
"""


def config(listen, providers):
    """The config, with budgets that are partly spent whatever the day."""
    today = time.gmtime()
    ports = {name: provider.port for name, provider in providers.all.items()}
    return CONFIG.format(listen=listen, ide_budget=1, agents_budget=nice((spent(today.tm_wday, "agents") + EXPECTED["agents"]) / 0.5),
                         budget=nice((spent(today.tm_mday - 1) + sum(EXPECTED.values())) / 0.6), **ports)


# Dollars that the clients spend in three minutes, roughly.
EXPECTED = {"default": 0.8, "ide": 0.24, "agents": 0.25, "batch": 0.3}


def spent(days, project=None):
    """Dollars of past usage, today and that many days before."""
    return sum(row["cost"] for row in past_usage() if row["day"] >= TODAY - days and project in (None, row["project"])) / 1e9


def nice(dollars):
    """The next round sum."""
    return next(sum for sum in (1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 150, 200) if sum >= dollars)


class Providers:
    """The scripted providers, and what goes wrong with them."""

    def __init__(self):
        self.limited, self.overloads = False, 0
        self.all = {
            "anthropic": Provider("anthropic", ["claude-sonnet-5-5", "claude-haiku-5-5"], {"demo-anthropic": self.overload},
                                  speed=62, wait=0.45, limits=(50, 400_000)),
            "openai": Provider("openai", ["gpt-6.1-terra", "gpt-6-luna"], {"demo-openai-old": reject, "demo-openai-work": self.limit},
                               speed=75, wait=0.5, limits=(60, 200_000)),
            "gemini": Provider("gemini", ["gemini-3.8-flash", "gemini-3.5-flash-lite"], speed=140, wait=0.3, words=(80, 400)),
            "deepseek": Provider("openai", ["deepseek-v4-pro", "deepseek-v4-flash"], speed=38, wait=0.8),
            "groq": Provider("openai", ["llama-3.3-70b-versatile", "openai/gpt-oss-120b"], speed=210, wait=0.18, words=(80, 400), limits=(30, 12_000)),
            "lmstudio": Provider("openai", ["qwen3-coder-30b"], speed=30, wait=0.9, words=(40, 120), port=1234),
        }

    def limit(self, _body):
        if self.limited:
            raise Fault(429, "Rate limit reached for requests per minute", "rate_limit_exceeded", {"retry-after": "58"})

    def overload(self, body):
        """One request of a logical model meets an overloaded provider."""
        if self.overloads > 0 and "sonnet" in body["model"]:
            self.overloads -= 1
            raise Fault(529, "Overloaded", "overloaded_error")


def reject(_body):
    raise Fault(401, "Incorrect API key provided", "invalid_api_key")


class Client:
    """A program that sends requests one after the other: a conversation that grows, and then a new one."""

    def __init__(self, scene, name, agent, key, models, pause=None, dialect="openai", turns=6):
        self.scene, self.name, self.agent, self.key, self.models = scene, name, agent, key, models
        self.pause, self.dialect, self.turns = pause, dialect, turns
        self.dice, self.messages, self.session = random.Random(name), [], 0
        if pause:
            threading.Thread(target=self.work, daemon=True).start()

    def work(self):
        time.sleep(self.dice.uniform(0, 2))
        while not self.scene.ended:
            self.send(self.dice.choice(self.models))
            self.scene.resting.wait(self.dice.uniform(0.5, 1.5) * self.pause)

    def send(self, model, read=None, system="You are a careful programmer. Read the code before you change it."):
        if len(self.messages) >= 2 * self.turns:
            self.messages, self.session = [], self.session + 1
        self.messages.append({"role": "user", "content": self.dice.choice(QUESTIONS)})
        body = {"model": model, "messages": self.messages, "stream": True, "max_tokens": 4_096}
        path, headers = "/v1/chat/completions", {"authorization": f"Bearer {self.key}"}
        if self.dialect == "anthropic":
            path, headers = "/v1/messages", {"x-api-key": self.key, "anthropic-version": "2023-06-01"}
            body["system"] = system
        else:
            body["messages"] = [{"role": "system", "content": system}, *self.messages]
        headers |= {"content-type": "application/json", "user-agent": self.agent, "x-session-id": f"{self.name}-{self.session}"}
        self.scene.post(path, body, headers, read)
        self.messages.append({"role": "assistant", "content": "Read the clock once per deadline; the test passes now."})


class Scene:
    """Drives traffic through a proxy for a while, and breaks things at their time."""

    def __init__(self, url, default_key, providers):
        self.url, self.providers, self.ended, self.resting = url, providers, False, threading.Event()
        client = lambda *args, **more: Client(self, *args, **more)
        self.clients = [
            client("claude", "claude-cli/2.4.1 (external, cli)", default_key, ["claude-sonnet-5-5", "claude-sonnet-5-5", "claude-haiku-5-5"], 4, "anthropic", 9),
            client("ide", "Zed/1.8.0", KEYS["IDE_KEY"], ["gpt-6.1-terra", "smart", "gpt-4o-mini"], 5),
            client("agents", "agents/0.9", KEYS["AGENTS_KEY"], ["smart", "deepseek-v4-pro", "claude-haiku-5-5"], 4),
            client("aider", "aider/0.92", default_key, ["deepseek-v4-flash", "fast"], 7),
            client("batch", "python-httpx/0.30", KEYS["BATCH_KEY"], ["gemini-3.8-flash", "fast", "gpt-6-luna"], 3),
        ]

    def post(self, path, body, headers, read=None):
        """One request, read to its end or for `read` bytes; failures are part of the picture."""
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                answer.read(read)
        except (urllib.error.URLError, http.client.HTTPException, OSError):
            pass

    def run(self, seconds, config):
        """Traffic for that many seconds, with all the troubles, and a change of the config."""
        change = lambda: config.write_text(config.read_text() + '\n[retry]\nmax_attempts = 5\n')
        script = [(0.2, change), (0.5, self.providers.all["lmstudio"].kill), (0.85, self.overload), (0.9, lambda: self.aside("ide", "gpt-5-turbo")),
                  (0.93, lambda: self.aside("claude", "claude-haiku-5-5", read=900)), (0.96, self.limit), (1.0, self.rush)]
        begin = time.monotonic()
        for share, step in script:
            time.sleep(max(0, begin + share * seconds - time.monotonic()))
            step()

    def aside(self, name, model, read=None):
        """One more request of a client: for a model that does not exist, or read only partly."""
        client = next(client for client in self.clients if client.name == name)
        threading.Thread(target=client.send, args=(model, read), daemon=True).start()

    def rush(self):
        """Several long answers at once, for a picture of work in progress."""
        for provider in self.providers.all.values():
            provider.words = (700, 900)
        for name, model in [("claude", "claude-sonnet-5-5"), ("agents", "deepseek-v4-pro"), ("ide", "gpt-6.1-terra"), ("batch", "gemini-3.8-flash")]:
            self.aside(name, model)
            time.sleep(0.7)

    def overload(self):
        """A request that two keys of one provider refuse, and another provider answers."""
        self.providers.overloads = 2
        review = Client(self, "review", "review-bot/1.2", KEYS["AGENTS_KEY"], ["smart"])
        threading.Thread(target=review.send, args=("smart",), daemon=True).start()

    def limit(self):
        self.providers.limited = True
        self.aside("ide", "gpt-6.1-terra")

    def end(self):
        self.ended = True
        self.resting.set()


TODAY = int(time.time()) // 86_400
# Past usage: project, client, upstream, key, model, requests a day, tokens in and out per request, dollars per request.
HABITS = [
    ("default", "claude-cli", "anthropic", "work", "claude-sonnet-5-5", 60, 63_000, 420, 0.024),
    ("agents", "agents", "anthropic", "work", "claude-haiku-5-5", 85, 26_000, 310, 0.0017),
    ("ide", "Zed", "openai", "home", "gpt-6.1-terra", 45, 39_000, 300, 0.016),
    ("agents", "agents", "deepseek", "main", "deepseek-v4-pro", 35, 28_000, 600, 0.0095),
    ("batch", "python-httpx", "gemini", "main", "gemini-3.8-flash", 120, 9_000, 180, 0.0042),
    ("batch", "python-httpx", "lmstudio", "", "qwen3-coder-30b", 40, 7_000, 90, 0),
]


def past_usage(days=30):
    """Sums of past days and this morning by project and model, as the ledger has them when the proxy has been used for a month."""
    dice, rows = random.Random("past"), []
    for day in range(TODAY - days, TODAY + 1):
        for project, client, upstream, key, model, often, tokens, words, dollars in HABITS:
            # Less on weekends; day 3 of the epoch was a Sunday.
            busy = dice.uniform(0.1, 0.4) if day % 7 in (2, 3) else dice.uniform(0.6, 1.4)
            if day == TODAY:
                busy = 0.8
            requests = int(often * busy)
            rows.append({"day": day, "project": project, "client": client, "upstream": upstream, "key": key, "model": model, "op": "chat", "demo": 0,
                         "requests": requests, "failed": requests // 60, "attempts": requests + requests // 20,
                         "input": requests * tokens // 5, "cache_read": requests * tokens * 4 // 5, "output": requests * words,
                         "reasoning": requests * words // 3 if "deepseek" in model else 0, "cost": int(requests * dollars * 1e9)})
    return rows


def add_past_usage(ledger):
    zeros = "cache_write_5m cache_write_1h audio_in image_in audio_out image_out searches unpriced estimated at_least".split()
    with sqlite3.connect(ledger) as database:
        for row in past_usage():
            row |= dict.fromkeys(zeros, 0)
            database.execute(f"INSERT INTO daily ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", list(row.values()))
