class Console:
    def __init__(self, *args, **kwargs): ...

    async def __call__(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 501, "headers": []})
        await send({"type": "http.response.body", "body": b""})
