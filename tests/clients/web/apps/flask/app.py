"""Flask's quickstart: routing, forms, file uploads, cookies, sessions, redirects; and its page on proxies."""

import hashlib

from flask import Flask, make_response, redirect, render_template_string, request, session, url_for
from markupsafe import escape
from werkzeug.middleware.proxy_fix import ProxyFix

app = Flask(__name__)
app.secret_key = "_5#y2L\"F4Q8z\n\xec]/"
app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1, x_prefix=1)


@app.route("/")
def index():
    if "username" in session:
        return f"Logged in as {escape(session['username'])}"
    return "You are not logged in"


@app.route("/login", methods=["GET", "POST"])
def login():
    if request.method == "POST":
        session["username"] = request.form["username"]
        return redirect(url_for("index"))
    return render_template_string('<form method="post" action="{{ url_for(\'login\') }}"><input type=text name=username><input type=submit value=Login></form>')


@app.route("/logout")
def logout():
    session.pop("username", None)
    return redirect(url_for("index"))


@app.route("/upload", methods=["POST"])
def upload_file():
    file = request.files["the_file"]
    return {"name": file.filename, "type": file.content_type, "sha256": hashlib.sha256(file.stream.read()).hexdigest(), "note": request.form["note"]}


@app.route("/cookies")
def cookies():
    response = make_response({"got": request.cookies})
    response.set_cookie("username", "the username", httponly=True)
    response.set_cookie("tracking", "off", max_age=60)
    return response


@app.route("/where")
def where():
    return {"url": url_for("where", _external=True), "addr": request.remote_addr, "root": request.script_root}


@app.errorhandler(404)
def page_not_found(error):
    return render_template_string("no {{ request.path }}"), 404
