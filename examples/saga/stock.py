"""Stock takes the pieces of an order from the shelf, and puts them back."""

import app
import saga


def reserve(order):
    shelf = "stock/" + order["article"]
    left = app.get(shelf, 0)
    if left < order["pieces"]:
        return f"{left} left"
    app.put(shelf, left - order["pieces"])


def release(order):
    shelf = "stock/" + order["article"]
    app.put(shelf, app.get(shelf, 0) + order["pieces"])


if __name__ == "__main__":
    saga.serve("stock", do=reserve, undo=release)
