# oracle.py - what masks ought to be, computed a second time: written from the documentation, shares no code with freezerd.
"""
Everything is done the slow and obvious way: a rule is asked for each parameter at each batch. A mask is a string with
one character per parameter in the trainer's order, "1" = trains, as mock_trainer and `freezerctl simulate` write it.
"""

import re

NEVER = float("inf")


def numbers_of(range_text):
    """The texts that one {…} stands for: {0..11} or {a,b}."""
    low, dots, high = range_text.partition("..")
    if dots:
        return [str(n) for n in range(int(low), int(high) + 1)]
    return range_text.split(",")


def expand(pattern):
    """All patterns without braces that one with braces stands for."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        return [pattern]
    return [whole for text in numbers_of(found.group(1))
            for whole in expand(pattern[:found.start()] + text + pattern[found.end():])]


def glob_to_regex(pattern):
    """One component is what stands between two dots; `**` is any number of them."""
    out = []
    components = pattern.split(".")
    for i, component in enumerate(components):
        last = i == len(components) - 1
        if component == "**":
            out.append(".+" if last else r"(?:[^.]+\.)*")
            continue
        text = ""
        for piece in re.findall(r"\[!?[^]]*\]|.", component):
            if piece == "*":
                text += "[^.]*"
            elif piece == "?":
                text += "[^.]"
            elif piece.startswith("["):
                text += "[^." + piece[2:] if piece.startswith("[!") else piece
            else:
                text += re.escape(piece)
        out.append(text + ("" if last else r"\."))
    return "".join(out)


def selects(pattern, name):
    """Whether a pattern selects a parameter."""
    if pattern.startswith("name:"):
        return name == pattern[5:]
    if pattern.startswith("prefix:"):
        return name.startswith(pattern[7:])
    if pattern.startswith("re:"):
        return re.search(pattern[3:], name) is not None
    for plain in expand(pattern):
        if not any(c in plain for c in "*?["):
            if name == plain or name.startswith(plain + "."):
                return True
        elif re.fullmatch(glob_to_regex(plain), name):
            return True
    return False


def select(patterns, names):
    """Indexes of the parameters that a list of patterns selects."""
    return {i for i, name in enumerate(names) if any(selects(p, name) for p in patterns)}


def is_active(window, step, epoch):
    """`window` is (from_step, from_epoch, until_step, until_epoch): in force from both starts until either end."""
    from_step, from_epoch, until_step, until_epoch = window
    return from_step <= step < until_step and from_epoch <= epoch < until_epoch


def window_of(rule):
    """The window of a rule as written in a rules document."""
    start, end = rule.get("from", {}), rule.get("until", {})
    return (start.get("step", 0), start.get("epoch", 0), end.get("step", NEVER), end.get("epoch", NEVER))


class Owned:
    """Profile owned: baseline, rules in order, live changes, pins."""

    def __init__(self, params, document=None):
        """`params`: (name, elements, flag); `document`: the rules as an object."""
        self.names = [name for name, _, _ in params]
        self.baseline = [bool(flag) for _, _, flag in params]
        self.rules = []
        document = document or {}
        for rule in document.get("rules", []):
            action = "freeze" if "freeze" in rule else "train"
            self.rules.append((action == "train", window_of(rule),
                               select(rule[action], self.names) - select(rule.get("except", []), self.names)))
        self.rules_pin = select(document.get("pin", []), self.names)
        self.changes = []

    def change(self, step, action, patterns, value=None, until_step=None, until_epoch=None):
        """A live change that is in effect from `step` on; `value`: the flag of a pin."""
        ends = (NEVER if until_step is None else until_step, NEVER if until_epoch is None else until_epoch)
        self.changes.append((step, action, select(patterns, self.names), value, ends))

    def confirmed(self, answer, patterns, **keywords):
        """Notes a change by freezerd's answer to it, if that changed anything."""
        if not answer.get("nothing") and not answer.get("dry_run"):
            self.change(answer["step"], answer["action"], patterns, until_step=answer.get("until_step"),
                        until_epoch=answer.get("until_epoch"), **keywords)

    def boundaries(self):
        """(steps, epochs) at which the mask may change."""
        steps, epochs = set(), set()
        for _, window, _ in self.rules:
            steps.update((window[0], window[2]))
            epochs.update((window[1], window[3]))
        for step, _, _, _, ends in self.changes:
            steps.update((step, ends[0]))
            epochs.add(ends[1])
        return sorted(steps), sorted(epochs)

    def standing(self, index, step):
        """What the live changes until `step` left of one parameter: ([(trains, ends)], pin or None)."""
        overrides, pin = [], None
        for start, action, selected, value, ends in self.changes:
            if start > step or index not in selected:
                continue
            if action in ("freeze", "unfreeze"):
                overrides.append((action == "unfreeze", ends))
            elif action == "auto":
                overrides.clear()
            elif action == "pin":
                pin = value if pin is None else pin
            elif action == "unpin":
                pin = None
        return overrides, pin

    def _by_changes(self, index, step, epoch):
        """What the live changes say of one parameter: (override or None, pin or None)."""
        overrides, pin = self.standing(index, step)
        standing = [trains for trains, ends in overrides if step < ends[0] and epoch < ends[1]]
        return (standing[-1] if standing else None), pin

    def mask(self, step, epoch=0):
        flags = []
        for index, flag in enumerate(self.baseline):
            trains = flag
            for trains_by_rule, window, selected in self.rules:
                if index in selected and is_active(window, step, epoch):
                    trains = trains_by_rule
            override, pin = self._by_changes(index, step, epoch)
            if override is not None:
                trains = override
            if pin is not None:
                trains = pin
            if index in self.rules_pin:
                trains = flag
            flags.append("1" if trains else "0")
        return "".join(flags)

    def masks(self, batches):
        """{(step, epoch): mask} for many batches, asking anew only where something may have changed."""
        steps, epochs = self.boundaries()
        known, out = {}, {}
        for step, epoch in batches:
            place = (sum(b <= step for b in steps), sum(b <= epoch for b in epochs))
            if place not in known:
                known[place] = self.mask(step, epoch)
            out[step, epoch] = known[place]
        return out


class Lighter:
    """Profile lighter: a list of callbacks, run at each batch as their code runs."""

    def __init__(self, params, blocks):
        self.names = [name for name, _, _ in params]
        self.flags = [bool(flag) for _, _, flag in params]
        self.callbacks = [[self._normalise(block), False] for block in blocks]

    @staticmethod
    def _normalise(block):
        def listed(key):
            value = block.get(key)
            return [] if value is None else [value] if isinstance(value, str) else list(value)

        return {"names": listed("names"), "prefixes": listed("name_starts_with"),
                "except": listed("except_names"), "except_prefixes": listed("except_name_starts_with"),
                "until_step": block.get("until_step"), "until_epoch": block.get("until_epoch")}

    def _write(self, c, flag):
        for i, name in enumerate(self.names):
            if name in c["except"] or any(name.startswith(p) for p in c["except_prefixes"]):
                self.flags[i] = True
            elif name in c["names"] or any(name.startswith(p) for p in c["prefixes"]):
                self.flags[i] = flag
            else:
                self.flags[i] = True

    def batch(self, step, epoch=0):
        """The mask that the forward pass of this batch sees."""
        for callback in self.callbacks:
            c, frozen = callback
            over = ((c["until_step"] is not None and step >= c["until_step"]) or
                    (c["until_epoch"] is not None and epoch >= c["until_epoch"]))
            if over and frozen:
                self._write(c, True)
                callback[1] = False
            elif not over and not frozen:
                self._write(c, False)
                callback[1] = True
        return "".join("1" if f else "0" for f in self.flags)
