"""`$(NAME)` in commands, arguments and variables of a manifest.

`$$` is a dollar sign, a name that is not known stays as it was written, and what was put in is not looked at again.
Source: Kubernetes API, Container.command, args and env.
"""

from collections.abc import Mapping


def expand(text: str, variables: Mapping[str, str]) -> str:
    """The text with every `$(NAME)` that `variables` knows replaced."""
    parts: list[str] = []
    at = 0
    while (dollar := text.find("$", at)) >= 0:
        parts.append(text[at:dollar])
        following = text[dollar + 1 : dollar + 2]
        if following == "$":
            parts.append("$")
            at = dollar + 2
        elif following == "(" and (end := text.find(")", dollar)) >= 0:
            parts.append(variables.get(text[dollar + 2 : end], text[dollar : end + 1]))
            at = end + 1
        else:
            parts.append("$")
            at = dollar + 1
    return "".join(parts) + text[at:]
