# readme.py - what README shows is what freezerctl says: its transcript, word for word but for steps, times and people.
import os
import pwd
import re
import shlex
import socket
import subprocess

import fz
from fz import equal

FOREVER = 10**9
RANKS = 8
LAYER = [("ln_1.weight", 768), ("ln_1.bias", 768), ("attn.c_attn.weight", 1769472), ("attn.c_attn.bias", 2304),
         ("attn.c_proj.weight", 589824), ("attn.c_proj.bias", 768), ("ln_2.weight", 768), ("ln_2.bias", 768),
         ("mlp.c_fc.weight", 2359296), ("mlp.c_fc.bias", 3072), ("mlp.c_proj.weight", 2359296),
         ("mlp.c_proj.bias", 768)]
GPT2 = ([("model.embed_tokens.weight", 38597376, 0), ("model.embed_positions.weight", 786432, 1)] +
        [(f"model.layers.{i}.{name}", elements, 1) for i in range(12) for name, elements in LAYER] +
        [("model.norm.weight", 768, 1), ("model.norm.bias", 768, 1)])


def transcript():
    """The commands of README's console blocks and what it shows below each, as (command, text)."""
    with open(os.path.join(os.environ["top_srcdir"], "README.md"), encoding="utf-8") as readme:
        blocks = re.findall(r"^```console\n(.*?)^```$", readme.read(), re.MULTILINE | re.DOTALL)
    parts = [part.partition("\n") for block in blocks for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    return [(command, text) for command, _, text in parts]


def without_moments(text):
    """A text with steps, speeds and times taken out; a step that a rule names stays."""
    text = re.sub(r"step (?!9,000)[\d,]+", "step N", text)
    text = re.sub(r" \([\d.,]+ \w+/step\)", "", text)
    return re.sub(r"\d\d:\d\d:\d\d", "TIME", text)


def as_in_readme(text):
    """What freezerctl says here, as it would say it to README's user on README's machine."""
    user, host = pwd.getpwuid(os.getuid()).pw_name, socket.gethostname()
    text = text.replace(f"{user}@{host}", "ana@gpu07").replace(f"override {user}:", "override ana:")
    text = text.replace(f"{user} (uid {os.getuid()}) on {host}", "ana (uid 1000) on gpu07")
    return text.replace("  mock  ", "  lightning  ")


@fz.test("README's transcript")
def readme(t):
    t.daemon()
    t.trainers(GPT2, (4000, FOREVER), RANKS, run="gpt2-ft", launch="48213", step_us=2000, quiet=True)
    equal(t.ctl("wait", "--for", "attached").status, 0, "all ranks have attached")
    shown = transcript()
    fz.check(len(shown) >= 5, "README shows no transcript any more", shown)
    for command, text in shown:
        words = shlex.split(command)
        if words[0] == "cat":
            t.write(words[1], text)
            continue
        done = subprocess.run([fz.FREEZERCTL, *words[1:]], capture_output=True, text=True, env=t.env, cwd=t.root,
                              timeout=fz.seconds(60), check=False)
        equal(without_moments(as_in_readme(done.stdout + done.stderr)), without_moments(text), f"answer to {command}")
        equal(done.returncode, 0, f"exit status of {command}")
    t.end()


if __name__ == "__main__":
    fz.main()
