"""An action of one's own: an ordinary function with a name that workflows call it by."""

from orchestration import action


@action("greetings.greet")
def greet(name: str) -> str:
    """Greet somebody."""
    return f"Hello, {name}!"
