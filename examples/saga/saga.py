"""Saga moves an order through its steps, and back through those that were done as soon as one refuses.

Each move is a call of an atomic function: what the step does, the order's new state and the event for the next step are
one commit. So every step and every compensation happens exactly once, and an order is never between two states.
"""

import app

STEPS = ["stock", "payment", "shipping"]  # functions, and the topics that they take orders from


def serve(name, do, undo):
    """Serve the step of that name. do(order) answers None, or why it refuses; then it has changed nothing."""

    def handle(_, event):
        order = app.get("order/" + event["data"]["order"])
        if order["state"] == "open":
            forward(name, order, do(order))
        else:
            undo(order)
            order["done"].remove(name)
            order["history"].append(name + " undone")
        return go_on(order)

    app.serve(handle)


def forward(name, order, refusal):
    if refusal:
        order["state"] = "cancelling"
        order["history"].append(f"{name} refused: {refusal}")
    else:
        order["done"].append(name)
        order["history"].append(name + " done")


def go_on(order):
    """Store the order and tell who is next: forward while it is open, else the last that did something."""
    done, following = order["done"], None
    if order["state"] == "open" and len(done) < len(STEPS):
        following = STEPS[len(done)]
    elif order["state"] == "open":
        order["state"] = "completed"
    elif done:
        following = done[-1]
    else:
        order["state"] = "cancelled"
    app.put("order/" + order["id"], order)
    if following:
        app.publish(following, {"order": order["id"], "article": order["article"], "customer": order["customer"]})
    return order
