"""What is predicted about a whole patient, and the words for it."""

from gmmas_jax.errors import UserError

TASKS: dict[str, tuple[str, ...]] = {
    "idh": ("wildtype", "mutant"),
    "codel_1p19q": ("intact", "codeleted"),
    "histology": ("glioblastoma", "astrocytoma", "oligodendroglioma"),
    "grade": ("2", "3", "4"),
    "mgmt": ("unmethylated", "methylated"),
    "outcome": ("progression", "pseudoprogression"),
}
"""Task name to its classes, in the order of the class axis. Histology and grade are those of
WHO CNS5 (2021) for adult-type diffuse gliomas."""


def task_index(task: str, value: str | None, *, source: str = "task value") -> int | None:
    """Returns the class index of a task's value.

    Args:
        task: A name of `TASKS`.
        value: One of the task's classes (case does not matter); None or an empty string is a
            missing label.
        source: What the message names, for example a file, row and column.

    Returns:
        The index on the class axis, or None for a missing label: missing is never class 0.

    Raises:
        UserError: If the task or the value is unknown.
    """
    if task not in TASKS:
        raise UserError(f"{source}: unknown task {task!r}; expected one of {', '.join(TASKS)}.")
    text = "" if value is None else value.strip().lower()
    if not text:
        return None
    if text not in TASKS[task]:
        raise UserError(
            f"{source}: {task} is {value!r}; expected one of {', '.join(TASKS[task])}. "
            "Leave it empty if it is not known."
        )
    return TASKS[task].index(text)
