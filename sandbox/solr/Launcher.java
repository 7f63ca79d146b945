import java.nio.file.Path;
import java.util.EnumSet;
import java.util.Properties;
import javax.servlet.DispatcherType;
import org.apache.solr.core.CoreContainer;
import org.apache.solr.servlet.CoreContainerProvider;
import org.apache.solr.servlet.SolrDispatchFilter;
import org.eclipse.jetty.http2.server.HTTP2CServerConnectionFactory;
import org.eclipse.jetty.server.HttpConfiguration;
import org.eclipse.jetty.server.HttpConnectionFactory;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import org.eclipse.jetty.servlet.DefaultServlet;
import org.eclipse.jetty.servlet.FilterHolder;
import org.eclipse.jetty.servlet.ServletContextHandler;

/**
 * Solr in a Jetty of its own: `java Launcher ADDRESS PORT HOME`. It listens once its cores are
 * loaded, on that address alone; ends with 1 and the reason if Solr cannot start; and on SIGTERM
 * it closes the indexes. A core that fails to load is said, and leaves the others to answer.
 */
public class Launcher {
    public static void main(String[] arguments) {
        try {
            start(arguments[0], Integer.parseInt(arguments[1]), Path.of(arguments[2]));
        } catch (Throwable failure) {
            System.err.println("Solr did not start: " + reason(failure));
            System.exit(1);
        }
    }

    private static void start(String address, int port, Path home) throws Exception {
        Server server = new Server();
        ServletContextHandler context = new ServletContextHandler(server, "/solr");
        context.setAttribute(SolrDispatchFilter.SOLRHOME_ATTRIBUTE, home.toAbsolutePath().toString());
        context.setAttribute(SolrDispatchFilter.PROPERTIES_ATTRIBUTE, new Properties());
        context.addEventListener(new CoreContainerProvider());
        SolrDispatchFilter solr = new SolrDispatchFilter();
        context.addFilter(new FilterHolder(solr), "/*", EnumSet.of(DispatcherType.REQUEST));
        context.addServlet(DefaultServlet.class, "/");
        server.setStopAtShutdown(true);
        server.setStopTimeout(10_000);
        server.start();
        sayCores(solr.getCores()); // throws what the start has swallowed
        listen(server, address, port);
        System.out.println("Solr listens on " + address + ":" + port);
    }

    private static void sayCores(CoreContainer cores) {
        cores.waitForLoadingCoresToFinish(60_000);
        cores.getCoreInitFailures().forEach((name, failure) ->
            System.err.println("core " + name + " did not load: " + reason(failure.exception)));
        System.out.println("cores: " + String.join(" ", cores.getLoadedCoreNames()));
    }

    private static void listen(Server server, String address, int port) throws Exception {
        HttpConfiguration http = new HttpConfiguration();
        http.setSendServerVersion(false);
        ServerConnector connector = new ServerConnector(
            server, new HttpConnectionFactory(http), new HTTP2CServerConnectionFactory(http));
        connector.setHost(address);
        connector.setPort(port);
        server.addConnector(connector);
        connector.start();
    }

    /** The messages of a failure and its causes, on one line. */
    private static String reason(Throwable failure) {
        StringBuilder text = new StringBuilder(String.valueOf(failure.getMessage()));
        for (Throwable cause = failure.getCause(); cause != null; cause = cause.getCause()) {
            text.append("; ").append(cause.getMessage());
        }
        return text.toString().replaceAll("\\s+", " ");
    }
}
