"""Completion of commands, flags and their values in bash and zsh, generated from the flags."""

from __future__ import annotations

from collections.abc import Mapping

from absl import flags

from keras_robust.experiments.flags.attack_flags import NORMS

SHELLS = ("bash", "zsh")
HELP = """Prints a script that completes commands and flags in a shell.

    source <(keras-robust completion bash)

in ~/.bashrc, or `completion zsh` in ~/.zshrc, completes commands, flags, the values of a flag with
choices, and files."""

# Values of flags that also take others, such as unions of norms.
_VALUES = {"norm": NORMS}

# In bash `=` is a word of its own, in zsh it is part of the flag's. No reply means files.
_SCRIPT = """\
_keras_robust() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" command="${{COMP_WORDS[1]}}"
  local flag="" prefix="" words=""
  COMPREPLY=()
  if [ "$COMP_CWORD" -le 1 ]; then
    COMPREPLY=($(compgen -W "{commands}" -- "$current"))
    return
  fi
  if [ "$current" = "=" ]; then
    flag="${{COMP_WORDS[COMP_CWORD-1]}}" current=""
  elif [ "${{COMP_WORDS[COMP_CWORD-1]}}" = "=" ]; then
    flag="${{COMP_WORDS[COMP_CWORD-2]}}"
  elif [[ "$current" == --*=* ]]; then
    flag="${{current%%=*}}" current="${{current#*=}}" prefix="${{COMP_WORDS[COMP_CWORD]%%=*}}="
  fi
  if [ -n "$flag" ]; then
    case "$command $flag" in
{values}
    esac
    if [ -z "$words" ] && [ -n "$prefix" ]; then
      COMPREPLY=($(compgen -f -P "$prefix" -- "$current"))
      return
    fi
  elif [ "$command" = completion ]; then
    words="{shells}"
  elif [[ "$current" == -* ]]; then
    case "$command" in
{flags}
    esac
  fi
  [ -z "$words" ] && return
  COMPREPLY=($(compgen -P "$prefix" -W "$words" -- "$current"))
  if [[ "${{COMPREPLY[0]}}" == *= ]]; then compopt -o nospace 2>/dev/null; fi
}}
complete -o default -F _keras_robust keras-robust
"""


def script(shell: str, commands: Mapping[str, flags.FlagValues]) -> str:
    """The completion script.

    Args:
        shell: `"bash"` or `"zsh"`, which uses the functions of bash.
        commands: the name of each command, and its flags.

    Example:
        >>> values = flags.FlagValues()
        >>> _ = flags.DEFINE_enum("norm", "l2", ["l1", "l2"], "Norm.", flag_values=values)
        >>> '"attack --norm") words="l1 l2" ;;' in script("bash", {"attack": values})
        True
    """
    choices, names = [], []
    for command, values in commands.items():
        words = []
        for name in sorted(values):
            flag = values[name]
            words += [f"--{name}", f"--no{name}"] if flag.boolean else [f"--{name}="]
            found = getattr(flag.parser, "enum_values", None) or _VALUES.get(name)
            if found:
                choices.append(f'      "{command} --{name}") words="{" ".join(found)}" ;;')
        names.append(f'      {command}) words="{" ".join([*words, "--help", "--helpfull"])}" ;;')
    text = _SCRIPT.format(
        commands=" ".join([*commands, "completion", "--help", "--version"]),
        values="\n".join(choices),
        flags="\n".join(names),
        shells=" ".join(SHELLS),
    )
    head = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return head + text
