"""`python main.py` serves; `uvicorn main:app` and `gunicorn main:app` find the app."""

import sys

if __name__ == "__main__":
    from app.cli import main

    main(["serve", *sys.argv[1:]])
else:
    from app.main import create_app

    app = create_app()
