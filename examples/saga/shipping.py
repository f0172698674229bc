"""Shipping makes a parcel of an order. It is the last step, so nothing can refuse after it."""

import app
import saga

SERVED = {"BO", "CL", "EC", "PE"}


def ship(order):
    if order["country"] not in SERVED:
        return f"no parcels to {order['country']}"
    app.put("parcel/" + order["id"], {"article": order["article"], "pieces": order["pieces"], "country": order["country"]})


def take_back(order):
    app.remove("parcel/" + order["id"])


if __name__ == "__main__":
    saga.serve("shipping", do=ship, undo=take_back)
