// A real OpenID provider on a free port of loopback. It accepts any name and password, and prints its issuer once it listens.
// Clients may redirect to CALLBACK on any port, as the specification allows for programs on the user's machine.
import { createServer } from "node:http";
import { Provider } from "oidc-provider";

const { CLIENT_ID, CLIENT_SECRET, CALLBACK } = process.env;

const server = createServer();
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: CLIENT_ID,
        client_secret: CLIENT_SECRET,
        application_type: "native",
        redirect_uris: [`http://127.0.0.1${CALLBACK}`],
        token_endpoint_auth_method: "client_secret_basic",
      },
    ],
    claims: { openid: ["sub"], profile: ["name"], email: ["email"] },
    cookies: { keys: ["test-secret-of-the-provider"] },
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({ sub: id, name: `${id} of the tests`, email: `${id}@example.com` }),
    }),
    pkce: { required: () => true },
  });
  server.on("request", provider.callback());
  console.log(issuer);
});
