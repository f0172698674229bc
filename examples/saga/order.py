"""Order takes orders, and shows where one is."""

import app
import saga


def handle(path, wanted):
    if wanted is None:  # GET /orders/{id}
        order = app.get("order/" + path.rsplit("/", 1)[1])
        if order is None:
            raise app.Refused(404, "no such order")
        return order
    order = {
        "id": str(wanted["id"]),
        "article": str(wanted["article"]),
        "pieces": int(wanted["pieces"]),
        "cents": int(wanted["cents"]),
        "customer": str(wanted["customer"]),
        "country": str(wanted["country"]),
        "state": "open",
        "done": [],
        "history": [],
    }
    if order["pieces"] < 1 or order["cents"] < 0:
        raise app.Refused(400, "an order is for one piece or more, and costs something or nothing")
    if app.get("order/" + order["id"]):
        raise app.Refused(409, "there is an order of that id")
    return saga.go_on(order)


if __name__ == "__main__":
    app.serve(handle)
