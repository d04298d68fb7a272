"""The owner's model has its table."""

from flask import Flask
from sqlalchemy import func, select

from myapp.database import db
from myapp.models import Product


def test_product_is_kept(app: Flask) -> None:
    with app.app_context():
        db.session.add(Product(price=1200))
        db.session.commit()
        assert db.session.scalar(select(func.count()).select_from(Product)) == 1
